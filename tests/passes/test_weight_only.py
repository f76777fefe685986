"""Every spelling of ternary weights behind float activations: a TernaryLinear that computes the same."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bitcc import formats, passes
from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.facts import LayerFacts

    Array = NDArray[Any]

SHAPES = {"batch, tokens": (2, 3), "2, 3": (2, 3), "tokens": (5,), "5": (5,)}
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


def read(model: onnx.ModelProto) -> tuple[dict[str, Any], list[Array]]:
    """(attributes, [codes, scale, bias]) of the only packed node."""
    (node,) = models.bit_linears(model)
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    weight, scale, bias = (models.initializers(model)[name] for name in node.input[1:])
    codes = formats.FORMATS["t2"].unpack(weight, attributes["N"], attributes["K"])
    return attributes, [codes, scale, bias]


@every_case
def test_exactly_the_ternary_layer_is_packed(case: Case) -> None:
    model, (layer, head) = packed(case)
    assert (layer.name, layer.status, layer.activation) == ("node_linear", PACKED, "float")
    assert layer.reason.startswith(REASON)
    assert layer.reason.endswith(models.NO_QUANTIZER)
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
    attributes, (codes, scale, bias) = read(packed(case)[0])
    expected, arrays = case.expected, case.arrays()
    want = arrays[expected.scale].astype(np.float64).reshape(1, -1) * expected.gain
    assert attributes == {
        "K": models.K,
        "N": models.N,
        "group_size": models.K,
        "weight_format": b"t2",
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
    x = models.tokens(*SHAPES[case.rows])
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
    codes, scale, bias = (v.astype(np.float64) for v in read(packed(case)[0])[1])
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


# --- the values of a dense weight


CODES, SCALE = models.quantized(models.latent())


def with_dense(weight: Array, **options: Any) -> tuple[onnx.ModelProto, LayerFacts]:
    """(the packed model, the facts of the layer) of a dense weight [n, k] and float activations."""
    model, facts = models.pack(dense_model(weight), **options)
    return model, facts[0]


def dense_model(weight: Array) -> onnx.ModelProto:
    n, k = weight.shape
    values = {
        "fc.dense": np.ascontiguousarray(weight.T),
        "fc.bias": np.linspace(-1, 1, n, dtype=np.float32),
        "head.weight": np.random.default_rng(0).standard_normal((n, models.HEAD)).astype(np.float32),
    }
    return models.build("weight_only/dense", values=values, replace={"[$rows, 100]": f"[$rows, {k}]"})


def noise_of_half(dtype: Any) -> Array:
    """What a quantizer leaves that ran in half precision, stored in float32."""
    return models.noisy(models.latent(shape=(64, 256), seed=1).astype(dtype)).astype(np.float32)


VALUES = {
    "codes times scale": (CODES * np.float32(SCALE), "tensor", "exact"),
    "codes": (CODES.astype(np.float32), "tensor", "exact"),
    "noise of float32": (models.noisy(models.latent()), "tensor", "exact"),
    "noise of float32, heavy tails": (models.noisy(models.latent("heavy")), "tensor", "exact"),
    "rows": (CODES * np.geomspace(0.1, 9, models.N, dtype=np.float32)[:, None], "row", "exact"),
    "few rows of almost equal scales": (
        CODES[:8] * np.linspace(1, 1.02, 8, dtype=np.float32)[:, None],
        "row",
        "exact",
    ),
    "a row of zeros": (CODES * (np.arange(models.N) != 7)[:, None] * np.float32(0.1), "tensor", "exact"),
    "binary": (np.where(CODES == 0, 1, CODES) * np.float32(SCALE), "tensor", "exact"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_dense_weight_of_three_levels_is_packed(name: str) -> None:
    weight, scope, numerics = VALUES[name]
    facts = with_dense(weight, min_weights=0)[1]
    assert (facts.status, facts.scope, facts.numerics) == (PACKED, scope, numerics)
    assert facts.scheme == ("binary" if name == "binary" else "ternary")
    models.assert_same(dense_model(weight), min_weights=0)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_noise_of_half_precision_is_dropped(dtype: Any, sign: int) -> None:
    weight = sign * noise_of_half(dtype)
    model, facts = with_dense(weight)
    assert (facts.status, facts.scope, facts.numerics) == (PACKED, "tensor", "snapped")
    assert facts.max_error is not None
    assert facts.max_error < 2e-6
    codes, scale, _ = read(model)[1]
    snapped = models.run(dense_model(codes * scale[0]), x := models.tokens(2, 3, k=256))[0]
    assert models.largest_difference(models.run(model, x)[0], snapped) < 1e-5
    assert np.abs(codes * scale[0] - weight).max() < 0.03 * scale[0, 0]


@pytest.mark.parametrize("value", [0.99, 1.01])
def test_noise_on_one_side_of_the_level_is_noise_too(value: float) -> None:
    weight = CODES * np.float32(SCALE)
    weight[:, ::7] *= np.float32(value)
    _, facts = with_dense(weight)
    assert (facts.status, facts.numerics) == (PACKED, "snapped")


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_noise_of_weights_in_half_precision_is_dropped_behind_a_cast_too(half: str) -> None:
    weight = models.latent(shape=(64, 256), seed=1).astype(models.HALVES[half])
    model = models.build(
        "weight_only/half_stored",
        weight=weight.astype(np.float32),
        half=half,
        values={"half.dense": np.ascontiguousarray(models.noisy(weight).T)},
        replace={"[$rows, 100]": "[$rows, 256]"},
    )
    made, facts = models.pack(model)
    assert (facts[0].status, facts[0].numerics) == (PACKED, "snapped")
    np.testing.assert_array_equal(read(made)[1][0], models.quantized(weight)[0])


# --- scales of groups


def grouped(spelling: str, size: int, opset: int = 21) -> tuple[onnx.ModelProto, Array]:
    """(a model with one scale for each group, those scales [n, g])."""
    weight = models.latent(shape=(models.N, 256))
    scales = np.random.default_rng(size).uniform(0.5, 2, (models.N, 256 // size)).astype(np.float32)
    values = {"fc.group_scale": scales[:, :, None], "fc.block_scale": scales}
    model = models.build(
        f"weight_only/{spelling}", opset=opset, weight=weight, values=values, replace={"$group": str(size)}
    )
    return model, scales


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("spelling", ["groups", "qcdq_groups"])
def test_scales_of_groups_are_packed(spelling: str, size: int) -> None:
    model, scales = grouped(spelling, size)
    made, facts = models.pack(model)
    assert (facts[0].status, facts[0].scope, facts[0].activation) == (PACKED, f"group:{size}", "float")
    assert facts[0].scale == pytest.approx(scales.mean(), rel=1e-6)
    attributes, (codes, scale, _) = read(made)
    assert attributes["group_size"] == size
    np.testing.assert_array_equal(codes, models.quantized(models.latent(shape=(models.N, 256)))[0])
    np.testing.assert_allclose(scale, scales.T, rtol=1e-6)
    models.assert_same(model)


@pytest.mark.parametrize("opset", [15, 18, 23])
def test_scales_of_groups_are_packed_in_every_opset(opset: int) -> None:
    models.assert_same(grouped("groups", 64, opset)[0])


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_scales_of_groups_are_packed_in_half_precision(half: str) -> None:
    codes, _ = models.quantized(models.latent(shape=(models.N, 256)))
    scales = np.random.default_rng(0).uniform(0.5, 2, (models.N, 4)).astype(models.HALVES[half])
    dense = codes.astype(models.HALVES[half]) * np.repeat(scales, 64, axis=1)
    values = {"half.codes": np.ascontiguousarray(dense.T), "half.weight_scale": scales[:1, 0] * 0 + 1}
    sizes = {"[$rows, 100]": "[$rows, 256]"}
    model, facts = models.pack(models.build("weight_only/half", half=half, values=values, replace=sizes))
    assert (facts[0].status, facts[0].scope, facts[0].numerics) == (PACKED, "group:64", "float32")
    np.testing.assert_array_equal(read(model)[1][1], scales.T.astype(np.float32))


def test_scales_of_groups_and_of_rows_are_multiplied() -> None:
    model, _ = grouped("groups", 64)
    gain = np.linspace(-2, 3, models.N, dtype=np.float32)
    content = 'scaled_rows = Mul (product, "fc.row_scale") linear = Add (scaled_rows, "fc.bias")'
    weight = models.latent(shape=(models.N, 256))
    scales = np.random.default_rng(64).uniform(0.5, 2, (models.N, 4, 1)).astype(np.float32)
    model = models.build(
        "weight_only/groups",
        weight=weight,
        values={"fc.group_scale": scales, "fc.row_scale": gain},
        replace={"$group": "64", 'linear = Add (product, "fc.bias")': content},
    )
    _, (_, scale, _) = read(models.assert_same(model))
    np.testing.assert_allclose(scale, scales[:, :, 0].T * gain, rtol=1e-6)


def test_codes_of_groups_behind_an_int8_quantizer_keep_the_quantizer() -> None:
    weight = models.latent(shape=(models.N, 256))
    codes, _ = models.quantized(weight)
    scales = np.random.default_rng(0).uniform(0.5, 2, (models.N, 4, 1)).astype(np.float32)
    dense = (codes.reshape(models.N, 4, 64) * scales).reshape(models.N, 256)
    model = models.build(
        "dynamo_folded_bias",
        weight=weight,
        values={"fc.dense": np.ascontiguousarray(dense.T)},
        replace={"[$rows, 100]": "[$rows, 256]"},
    )
    facts = models.pack(model)[1]
    assert facts[0].reason == REASON + "it has group scales and int8 activations"
    assert "Round" in models.op_types(models.assert_same(model))


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
