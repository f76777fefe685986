"""Every spelling of ternary weights behind float activations: a TernaryLinear that computes the same."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bitcc import passes
from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.facts import LayerFacts

    Array = NDArray[Any]

REASON = "activations stay float: "


class Case(NamedTuple):
    """One file of ``models/spellings/weight_only`` with its variables."""

    spelling: str
    rows: str
    opset: int
    latent: str = "gaussian"
    half: str = "float16"

    @property
    def expected(self) -> models.WeightOnly:
        """What must be found."""
        return models.WEIGHT_ONLY[self.spelling]

    def original(self) -> onnx.ModelProto:
        """The model to compile."""
        name, weight = f"weight_only/{self.spelling}", models.latent(self.latent)
        return models.build(name, rows=self.rows, opset=self.opset, weight=weight, half=self.half)

    def arrays(self) -> dict[str, Array]:
        """What its weights are made of."""
        return models.arrays(models.latent(self.latent), self.half)

    @property
    def tolerance(self) -> float:
        """Of its scale: what rounding it to its type makes of it."""
        is_half = self.expected.half or self.spelling == "half_stored"
        return {"float16": 1e-3, "bfloat16": 4e-3}[self.half] if is_half else 1e-6


def _cases() -> list[Case]:
    cases: list[Case] = []
    for name, spelling in models.WEIGHT_ONLY.items():
        first = Case(name, spelling.rows[0], spelling.opsets[0])
        cases += [first._replace(rows=rows) for rows in spelling.rows]
        cases += [first._replace(opset=opset) for opset in spelling.opsets[1:]]
        is_half = name.startswith("half")
        cases.append(first._replace(half="bfloat16") if is_half else first._replace(latent="heavy"))
    return cases


CASES = _cases()
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))


@functools.cache
def packed(case: Case) -> tuple[onnx.ModelProto, tuple[LayerFacts, ...]]:
    return models.pack(case.original())


@every_case
def test_exactly_the_ternary_layer_is_packed(case: Case) -> None:
    model, (layer, head) = packed(case)
    assert (layer.name, layer.status, layer.activation) == ("node_linear", PACKED, "float")
    assert layer.reason.startswith(REASON)
    assert layer.reason.endswith(case.expected.reason)
    assert (head.name, head.status) == ("node_head", KEPT)
    assert [node.op_type for node in models.bit_linears(model)] == ["TernaryLinear"]
    assert [(f.domain, f.name) for f in model.functions] == [("bitcc", "TernaryLinear")]
    onnx.checker.check_model(model)


@every_case
def test_the_facts_describe_the_layer(case: Case) -> None:
    layer = packed(case)[1][0]
    expected, arrays = case.expected, case.arrays()
    assert (layer.op, layer.N, layer.K) == (expected.op_type, models.N, models.K)
    assert layer.scheme == ("ternary" if (arrays[expected.codes] == 0).any() else "binary")
    assert layer.scope == (
        "tensor" if arrays[expected.scale].size == 1 or "codes" in case.spelling else "row"
    )
    assert layer.numerics == ("float32" if expected.half else "exact")
    assert layer.zeros == pytest.approx(np.mean(arrays[expected.codes] == 0))
    assert layer.max_error is not None
    assert layer.max_error < 2e-6


@every_case
def test_the_codes_the_scale_and_the_bias_are_those_of_the_layer(case: Case) -> None:
    attributes, (codes, scale, bias) = models.read(packed(case)[0])
    expected, arrays = case.expected, case.arrays()
    want = arrays[expected.scale].astype(np.float64).reshape(1, -1) * expected.gain
    assert attributes == {
        "K": models.K,
        "N": models.N,
        "group_size": models.K,
        "weight_format": "t2",
        "layout_version": 1,
    }
    np.testing.assert_array_equal(codes, arrays[expected.codes])
    assert scale.shape == want.shape
    assert scale.dtype == bias.dtype == np.float32
    np.testing.assert_allclose(scale, want, rtol=case.tolerance)
    name = "half.bias" if expected.half else "fc.bias"
    want_bias = arrays[name].astype(np.float64) * expected.bias if expected.bias else np.zeros(1)
    np.testing.assert_allclose(bias, np.broadcast_to(want_bias, bias.shape), rtol=1e-6)


@pytest.mark.parametrize(
    "case", [c for c in CASES if not c.expected.half], ids=lambda case: "-".join(map(str, case))
)
def test_the_packed_model_computes_what_the_original_computes(case: Case) -> None:
    x = models.tokens(*models.LEADING[case.rows])
    (got,), (want,) = models.run(packed(case)[0], x), models.run(case.original(), x)
    assert models.largest_difference(got, want) < 1e-5


@every_case
def test_the_dense_weight_and_its_arithmetic_are_gone(case: Case) -> None:
    model, _ = packed(case)
    left = models.op_types(model)
    in_front = ["Sign"] if case.spelling == "sign_activations" else []
    behind = ["MatMul"] if case.expected.half else ["MatMul", "Add"]
    assert left == [*in_front, "TernaryLinear", *behind]
    names = set(models.initializers(model))
    assert not [name for name in names if name.startswith("fc.")]
    assert names == {i for node in model.graph.node for i in node.input} & names


def test_a_layer_in_half_precision_is_as_near_to_the_exact_result_as_the_original() -> None:
    case = Case("half", "2, 3", 18)
    x = np.random.default_rng(0).standard_normal((2, 3, models.K)).astype(np.float16)
    codes, scale, bias = (v.astype(np.float64) for v in models.read(packed(case)[0])[1])
    exact = (x.astype(np.float64) @ (codes.T * scale) + bias) @ case.arrays()["half.head"].astype(np.float64)
    original, made = (models.run(model, x)[0] for model in (case.original(), packed(case)[0]))
    assert made.dtype == original.dtype == np.float16
    assert np.abs(made - exact).max() <= np.abs(original - exact).max() + 4e-3 * np.abs(exact).max()


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_a_layer_that_leaves_half_precision_computes_in_float32(half: str) -> None:
    """The product is in half precision; its scale and its bias are not."""
    behind = {
        'linear = Add (product, "half.bias")': """wide = Cast <to = 1> (product)
          scaled = Mul (wide, "fc.scale")
          linear = Add (scaled, "fc.bias")""",
        '[node_head] y = MatMul (linear, "half.head")': '[node_head] y = MatMul (linear, "head.weight")',
        "($half[$rows, 20] y)": "(float[$rows, 20] y)",
    }
    model, facts = models.pack(models.build("weight_only/half", half=half, replace=behind))
    assert (facts[0].status, facts[0].numerics) == (PACKED, "float32")
    assert models.op_types(model) == ["Cast", "TernaryLinear", "MatMul"]
    onnx.checker.check_model(model, full_check=half == "float16")


# --- what stands around the layer


def test_the_layer_keeps_the_names_of_its_node_and_values() -> None:
    (node,) = models.bit_linears(models.assert_same(models.build("weight_only/dense")))
    assert (node.name, node.input[0], list(node.output)) == ("node_linear", "x", ["linear"])


def test_a_product_that_is_an_output_keeps_the_bias_behind_it() -> None:
    output = {"[$rows, 20] y)": "[$rows, 20] y, float[$rows, 60] product)"}
    made = models.assert_same(models.build("weight_only/dense", replace=output))
    assert models.op_types(made) == ["TernaryLinear", "Add", "MatMul", "Add"]


def test_a_bias_of_each_token_stays_behind_the_layer() -> None:
    bias = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    made = models.assert_same(models.build("weight_only/dense", rows="2, 3", values={"fc.bias": bias}))
    assert models.op_types(made) == ["TernaryLinear", "Add", "MatMul", "Add"]


@pytest.mark.parametrize("rows", ["", "3", "2, 3, 4"])
def test_the_input_can_have_any_rank(rows: str) -> None:
    rank = {
        "[$rows, 100]": "[$rows, 100]" if rows else "[100]",
        "[$rows, 20]": "[$rows, 20]" if rows else "[20]",
    }
    models.assert_same(models.build("weight_only/dense", rows=rows, replace=rank))


def test_layers_with_int8_and_with_float_activations_share_their_weights() -> None:
    more = """
      [second] again = MatMul (x, val_37)
      both = Add (linear, again)
      [node_head] val_39 = MatMul (both,"""
    model = models.build("dynamo", replace={"[node_head] val_39 = MatMul (linear,": more})
    made = models.assert_same(model, layers=2)
    first, second = models.bit_linears(made)
    assert (first.op_type, second.op_type) == ("BitLinear", "TernaryLinear")
    assert first.input[1] == second.input[1]
    assert {f.name for f in made.functions} == {"BitLinear", "TernaryLinear"}


def test_a_layer_behind_a_layer_is_packed_too() -> None:
    head = models.quantized(models.latent(shape=(models.HEAD, models.N)))[0].T.astype(np.float32)
    model = models.build("weight_only/dense", values={"head.weight": head})
    made = models.assert_same(model, layers=2, min_weights=0)
    assert models.op_types(made) == ["TernaryLinear", "TernaryLinear"]
    assert made.graph.output == model.graph.output


def test_a_packed_model_is_not_packed_again() -> None:
    graph = ir.from_proto(models.pack(models.build("weight_only/dense"))[0])
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    assert not passes.PIPELINE(graph).modified
    assert ir.to_proto(graph).SerializeToString(deterministic=True) == before
