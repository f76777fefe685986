"""Layers that quantise the same activations become one op, where that is faster, with the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models import siblings
from models.siblings import (
    MERGED,
    ROWS,
    WIDTH,
    assert_apart,
    assert_merged,
    copied,
    product,
    quantizer,
    shared,
)

from bitcc import passes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def test_layers_with_one_quantizer_are_one_op() -> None:
    merged = assert_merged(siblings.model(shared()))
    assert models.op_types(merged) == ["BitLinear", "Split"]
    node, split = merged.graph.node
    assert node.input[0] == "x"
    assert list(split.output) == ["q", "k", "v"]
    arrays = models.initializers(merged)
    assert arrays[split.input[1]].tolist() == [64, 32, 32]
    assert arrays[node.input[2]].shape == (128,)


def test_layers_with_a_quantizer_each_are_one_op() -> None:
    assert models.op_types(assert_merged(siblings.model(copied()))) == ["BitLinear", "Split"]


def test_layers_with_float_activations_stay_apart() -> None:
    nodes = "".join(product(n, "x").replace("x_dequantised", "x") for n in ROWS)
    packed = assert_apart(siblings.model(nodes))
    assert models.op_types(packed) == ["TernaryLinear"] * 3


WIDE = {"gate": 160, "up": 160}


@pytest.mark.parametrize("rows", [WIDE, {"q": 128, "k": 128, "v": 128}, {"q": 128, "k": 32}])
def test_layers_with_so_many_outputs_that_copying_them_costs_more_stay_apart(rows: dict[str, int]) -> None:
    assert_apart(siblings.model(shared(list(rows)), rows), layers=len(rows))


def test_layers_that_cost_more_are_left_out() -> None:
    rows = {**WIDE, **ROWS}
    _, facts = models.pack(siblings.model(shared(list(rows)), rows))
    assert [f.merged for f in facts] == ["", "", MERGED, MERGED, MERGED]


@pytest.mark.parametrize("rows", [(60, 20, 33), (64, 33, 20), (12, 5, 7), (16, 16, 5), (128, 64, 64)])
@pytest.mark.parametrize("opset", [15, 18, 23])
def test_any_number_of_rows_can_be_merged(rows: tuple[int, ...], opset: int) -> None:
    by_name = dict(zip(ROWS, rows, strict=True))
    model = siblings.model(shared(), by_name, opset=opset)
    merged, facts = models.pack(model, min_weights=0)
    apart, _ = models.pack(model, min_weights=0, merge=False)
    assert {f.merged for f in facts} == {MERGED}
    x = models.tokens(2, 3, k=WIDTH)
    for got, want in zip(models.run(merged, x), models.run(apart, x), strict=True):
        np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


@pytest.mark.parametrize("dims", ["tokens", "1, 1, 5", "0, 3", "batch, tokens"])
def test_any_shape_can_be_merged(dims: str) -> None:
    sizes = [int(d) if d.isdigit() else 4 for d in dims.split(", ")]
    assert_merged(siblings.model(shared(), dims=dims), x=models.tokens(*sizes, k=WIDTH))


BIASED = {
    "all": "".join(f'{n}_out = Add ({n}, "{n}.bias")\n' for n in ROWS),
    "one": 'k_out = Add (k, "k.bias")\n q_out = Identity (q)\n v_out = Identity (v)\n',
}


@pytest.mark.parametrize("which", BIASED)
def test_biases_are_merged(which: str) -> None:
    rng = np.random.default_rng(3)
    bias = {f"{n}.bias": rng.standard_normal(rows).astype(np.float32) for n, rows in ROWS.items()}
    outputs = {f"{n}_out": rows for n, rows in ROWS.items()}
    model = siblings.model(shared() + BIASED[which], ROWS, outputs=list(outputs), values=bias)
    for value, rows in zip(model.graph.output, outputs.values(), strict=True):
        value.type.tensor_type.shape.dim[-1].dim_value = rows
    assert_merged(model)


HALF = """
  wide = Cast <to = 1> (x)
{quantizer}
  narrow_dequantised = Cast <to = {to}> (x_dequantised)
"""


@pytest.mark.parametrize(("element", "to"), [("float16", 10), ("bfloat16", 16)])
def test_half_precision_layers_are_merged(element: str, to: int) -> None:
    nodes = HALF.format(quantizer=quantizer("x", "wide"), to=to)
    nodes += "".join(product(n, "narrow") for n in ROWS)
    dtype = models.HALVES[element]
    half = {name: value.astype(dtype) for name, value in siblings.weights(ROWS).items()}
    model = siblings.model(nodes, element=element, values=half)
    merged, facts = models.pack(model)
    assert {f.merged for f in facts} == {MERGED}
    assert models.op_types(merged) == ["BitLinear", "Split"]
    if element == "bfloat16":
        return  # onnxruntime's Python interface has no such arrays
    apart, _ = models.pack(model, merge=False)
    x = models.tokens(2, 3, k=WIDTH).astype(dtype)
    for got, want in zip(models.run(merged, x), models.run(apart, x), strict=True):
        np.testing.assert_array_equal(got.view(np.uint16), want.view(np.uint16))


def test_a_layer_that_gives_another_type_stays_apart() -> None:
    nodes = shared() + "v_half = Cast <to = 10> (v)\n v_double = Mul (v_half, two)\n"
    model = siblings.model(nodes, outputs=["q", "k", "v_double"], values={"two": np.full(1, 2, np.float16)})
    model.graph.output[2].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    model.graph.output[2].type.tensor_type.shape.dim[-1].dim_value = ROWS["v"]
    _, facts = models.pack(model)
    assert [f.merged for f in facts] == ["q_proj+k_proj", "q_proj+k_proj", ""]


def test_a_merged_layer_may_be_read_by_another() -> None:
    nodes = shared() + quantizer("o", "both") + product("o", "o")
    nodes = nodes.replace(
        "  o_abs", "  kv = Concat <axis = -1> (k, v)\n  both = Concat <axis = -1> (q, kv)\n  o_abs"
    )
    rows = {**ROWS, "o": 64}
    model = siblings.model(nodes, rows, outputs=["o", "k"])
    packed, facts = models.pack(model)
    assert [f.merged for f in facts] == [MERGED, MERGED, MERGED, ""]
    assert models.op_types(packed) == ["BitLinear", "Split", "Concat", "Concat", "BitLinear"]
    x = models.tokens(2, 3, k=WIDTH)
    for got, want in zip(models.run(packed, x), models.run(model, x), strict=True):
        assert models.largest_difference(got, want) < 1e-5


def test_groups_behind_one_another_are_each_one_op() -> None:
    first = shared()
    joined = "  kv = Concat <axis = -1> (k, v)\n  z = Concat <axis = -1> (q, kv)\n"
    second = quantizer("z", "z") + product("g", "z") + product("h", "z")
    model = siblings.model(first + joined + second, {**ROWS, "g": 64, "h": 64}, outputs=["g", "h"])
    packed, facts = models.pack(model)
    assert [f.merged for f in facts] == [MERGED] * 3 + ["g_proj+h_proj"] * 2
    x = models.tokens(2, 3, k=WIDTH)
    for got, want in zip(models.run(packed, x), models.run(model, x), strict=True):
        assert models.largest_difference(got, want) < 1e-5


def test_an_output_that_is_read_before_the_first_product_ends_is_there_in_time() -> None:
    nodes = shared().replace("[k_proj]", "early = Neg (x)\n[k_proj]")
    late = 'q_out = Mul (q, "gain")\n'
    nodes = nodes + "k_out = Neg (k)\n" + late
    model = siblings.model(
        nodes, outputs=["k_out", "q_out", "v"], values={"gain": np.linspace(1, 2, 64, dtype=np.float32)}
    )
    for value, rows in zip(model.graph.output, (32, 64, 32), strict=True):
        value.type.tensor_type.shape.dim[-1].dim_value = rows
    assert_merged(model)


def test_weights_that_another_layer_shares_are_not_stored_twice() -> None:
    nodes = shared() + quantizer("z", "y") + product("o", "z").replace("o.weight", "q.weight")
    nodes = nodes.replace("  z_abs", "  y = Neg (x)\n  z_abs")
    packed, facts = models.pack(siblings.model(nodes, {**ROWS, "o": 64}))
    assert [f.merged for f in facts] == ["", "k_proj+v_proj", "k_proj+v_proj", ""]
    sizes = [a.nbytes for a in models.initializers(packed).values() if a.dtype == np.uint8]
    assert sorted(sizes) == [64 * WIDTH // 4, 64 * WIDTH // 4]


def test_layers_in_the_branches_of_an_if_are_not_merged_with_those_outside() -> None:
    inside = "[o_proj] o = MatMul (x_dequantised, q_weight)"
    nodes = (
        shared(["k", "v"])
        + f"""
      q_weight = Identity ("q.weight")
      zeros = Identity (fallback)
      z = If <
        then_branch = then_graph () => (float[2, 3, 64] o) {{ {inside} }},
        else_branch = else_graph () => (float[2, 3, 64] p) {{ p = Identity (zeros) }}
      > (yes)"""
    )
    model = siblings.model(
        nodes,
        {"k": 32, "v": 32},
        outputs=["k", "v", "z"],
        values={
            **siblings.weights({"q": 64}),
            "yes": np.ones((), np.bool_),
            "fallback": np.zeros((2, 3, 64), np.float32),
        },
    )
    model.graph.output[2].type.tensor_type.shape.dim[-1].dim_value = 64
    packed, facts = models.pack(model)
    assert {f.name: f.merged for f in facts if f.name in {"k_proj", "v_proj"}} == {
        "k_proj": "k_proj+v_proj",
        "v_proj": "k_proj+v_proj",
    }
    x = models.tokens(2, 3, k=WIDTH)
    for got, want in zip(models.run(packed, x), models.run(model, x), strict=True):
        assert models.largest_difference(got, want) < 1e-5


def test_a_reshape_behind_the_quantizer_is_done_once() -> None:
    nodes = shared().replace("x_dequantised,", "flat_dequantised,")
    nodes = nodes.replace("[q_proj]", 'flat_dequantised = Reshape (x_dequantised, "rows")\n[q_proj]')
    model = siblings.model(nodes, values={"rows": np.array([6, WIDTH], np.int64)})
    for value in model.graph.output:
        del value.type.tensor_type.shape.dim[0]
        value.type.tensor_type.shape.dim[0].dim_value = 6
    assert models.op_types(assert_merged(model)) == ["Reshape", "BitLinear", "Split"]


def test_the_sizes_of_merged_layers_are_theirs() -> None:
    _, facts = models.pack(siblings.model(shared()))
    packed = {name: rows * WIDTH // 4 for name, rows in ROWS.items()}
    assert [f.N for f in facts] == list(ROWS.values())
    assert [f.bytes_after for f in facts] == [packed[n] + 8 * rows for n, rows in ROWS.items()]


def test_packed_weights_are_read_again_only_when_the_model_is_written() -> None:
    read: list[str] = []

    class Stored(ir.Tensor):  # type: ignore[type-arg]
        def numpy(self) -> Array:
            read.append(str(self.name))
            return super().numpy()

    graph = ir.from_proto(siblings.model(shared()))
    passes.pipeline(passes.PackBitLinearPass(store=Stored))(graph)
    assert read == []
    ir.to_proto(graph)
    assert len(read) == len(ROWS)
