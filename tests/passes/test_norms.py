"""RMS norms that only quantizers of packed layers read become part of their ops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import pytest

from bitcc.facts import PACKED
from bitcc.passes import fuse_norms
from bitcc.passes.rms_norm import match_rms_norm

if TYPE_CHECKING:
    from collections.abc import Mapping

SPELLING = "hf_offline_rms_bias"
WRITTEN_OUT = {
    "as torch does": {},
    "x * x": {"Pow (x, val_0)": "Mul (x, x)"},
    "1 / root": {
        "float val_0 = {2}": "float val_0 = {2}, float one = {1}",
        "Reciprocal (val_5)": "Div (one, val_5)",
    },
    "x / root": {"rsqrt = Reciprocal (val_5)": "", "Mul (x, rsqrt)": "Div (x, val_5)"},
    "the gain on the other side": {'Mul ("norm.weight", mul_9)': 'Mul (mul_9, "norm.weight")'},
    "the gain times the reciprocal": {
        "mul_9 = Mul (x, rsqrt)": 'mul_9 = Mul (rsqrt, "norm.weight")',
        'Mul ("norm.weight", mul_9)': "Mul (x, mul_9)",
    },
    "the gain through the root": {
        "rsqrt = Reciprocal (val_5)": "",
        "mul_9 = Mul (x, rsqrt)": 'mul_9 = Div ("norm.weight", val_5)',
        'Mul ("norm.weight", mul_9)': "Mul (mul_9, x)",
    },
    "a pool of averages": {
        "ReduceMean <noop_with_empty_axes = 0, keepdims = 1> (pow_1, val_3)": "GlobalAveragePool (pow_1)"
    },
    "casts": {
        "Pow (x, val_0)": "Pow (cast, val_0)",
        "pow_1 =": "cast = Cast <to = 1> (x) pow_1 =",
        "Mul (x, rsqrt)": "Mul (cast, rsqrt)",
    },
}
BODY = """  pow_1 = Pow (x, val_0)
  mean = ReduceMean <noop_with_empty_axes = 0, keepdims = 1> (pow_1, val_3)
  add_8 = Add (mean, val_4)
  val_5 = Sqrt (add_8)
  rsqrt = Reciprocal (val_5)
  mul_9 = Mul (x, rsqrt)
  mul_13 = Mul ("norm.weight", mul_9)
"""


def packed_node(replace: Mapping[str, str], **options: Any) -> tuple[onnx.ModelProto, onnx.NodeProto]:
    model = models.assert_same(models.build(SPELLING, replace=replace, **options))
    (node,) = models.bit_linears(model)
    return model, node


def norm_of(node: onnx.NodeProto) -> int:
    (norm,) = (a.i for a in node.attribute if a.name == "norm")
    return norm


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_every_way_to_write_it_is_found(name: str) -> None:
    model, node = packed_node(WRITTEN_OUT[name])
    assert (norm_of(node), node.input[0]) == (1, "cast" if name == "casts" else "x")
    assert not set(models.op_types(model)) & {"Pow", "ReduceMean", "Sqrt"}
    np.testing.assert_array_equal(models.initializers(model)[node.input[4]], models.arrays()["norm.weight"])


def test_a_norm_without_a_gain() -> None:
    model, node = packed_node({'mul_13 = Mul ("norm.weight", mul_9)': "mul_13 = Identity (mul_9)"})
    assert norm_of(node) == 1
    np.testing.assert_array_equal(models.initializers(model)[node.input[4]], [1])


def test_the_op_of_onnx() -> None:
    op = 'mul_13 = RMSNormalization <epsilon = 1e-6, axis = -1> (x, "norm.weight")\n'
    assert norm_of(packed_node({BODY: op}, opset=23)[1]) == 1


def test_the_op_of_onnxruntime() -> None:
    """The checker does not know it."""
    model = models.build(SPELLING)
    nodes = [
        n
        for n in model.graph.node
        if n.output[0] not in {"pow_1", "mean", "add_8", "val_5", "rsqrt", "mul_9"}
    ]
    for i, node in enumerate(nodes):
        if node.output[0] == "mul_13":
            nodes[i] = onnx.helper.make_node(
                "SimplifiedLayerNormalization", ["x", "norm.weight"], ["mul_13"], epsilon=1e-6, axis=-1
            )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.value_info.append(
        onnx.helper.make_tensor_value_info("mul_13", 1, ["batch", "tokens", models.K])
    )
    packed, (layer, _) = models.pack(model)
    assert (layer.status, layer.norm) == (PACKED, "rms")
    x = models.tokens(2, 3)
    (got,), (want,) = (models.run(m, x) for m in (packed, model))
    assert models.largest_difference(got, want) < 1e-5


OUTSIDE: Mapping[str, Mapping[str, str]] = {
    "of another axis": {
        "int64[1] val_3 = {-1}": "int64[1] val_3 = {-1}, int64[1] rows = {1}",
        "(pow_1, val_3)": "(pow_1, rows)",
    },
    "of cubes": {"float val_0 = {2}": "float val_0 = {3}", "Pow (x, val_0)": "Pow (x, val_0)"},
    "of something else": {"Pow (x, val_0)": "Pow (twice, val_0)", "pow_1 =": "twice = Add (x, x) pow_1 ="},
    "with a gain of each token": {'Mul ("norm.weight", mul_9)': "Mul (x, mul_9)"},
    "read by the head too": {
        "y = Add (val_38": 'also = MatMul (mul_13, "fc.codes") headed = MatMul (also, "head.weight")'
        " both = Add (val_38, headed) y = Add (both"
    },
    "seen outside": {"[$rows, 20] y)": "[$rows, 20] y, float[$rows, 100] mul_13)"},
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_other_norms_stay_in_front(name: str) -> None:
    replace = OUTSIDE[name]
    layers = models.pack(models.build(SPELLING, replace=replace, rows="2, 3"))[1]
    assert (layers[0].status, layers[0].norm) == (PACKED, "")
    assert layers[0].activation == "int8_token"


def test_every_layer_that_reads_a_norm_gets_it() -> None:
    second = """twin = MatMul (div, "fc.codes")
  twin_scaled = Mul (twin, "fc.weight_scale")
  twin_head = MatMul (twin_scaled, "head.weight")
  both = Add (val_38, twin_head)
  y = Add (both, "head.bias")"""
    model = models.build(SPELLING, replace={'y = Add (val_38, "head.bias")': second})
    packed = models.assert_same(model, layers=2)
    assert [(norm_of(node), node.input[0]) for node in models.bit_linears(packed)] == [(1, "x"), (1, "x")]
    assert not set(models.op_types(packed)) & {"Pow", "ReduceMean", "Sqrt"}


def test_a_norm_that_computes_something_else_stays_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_other_eps(*arguments: Any) -> Any:
        found = match_rms_norm(*arguments)
        return found and type(found)(found.x, found.eps + 1e-3, found.gain)

    monkeypatch.setattr(fuse_norms, "match_rms_norm", with_other_eps)
    assert models.pack(models.build(SPELLING))[1][0].norm == ""


def test_a_norm_in_front_of_a_body_stays_there() -> None:
    """It is computed once, the body perhaps often."""
    model = models.build(SPELLING, rows="2, 3")
    at = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Abs")
    inside = onnx.helper.make_graph(
        model.graph.node[at:],
        "body",
        [],
        [onnx.helper.make_tensor_value_info("y", 1, [2, 3, models.HEAD])],
    )
    outer = list(model.graph.node[:at])
    yes = onnx.helper.make_node("Constant", [], ["yes"], value=models.initializer("", np.array([True])))
    branches = {"then_branch": inside, "else_branch": inside}
    del model.graph.node[:]
    model.graph.node.extend([*outer, yes, onnx.helper.make_node("If", ["yes"], ["outer_y"], **branches)])
    model.graph.output[0].name = "outer_y"
    packed, facts = models.pack(model)
    assert [fact.norm for fact in facts if fact.status == PACKED] == ["", ""]
    assert "Sqrt" in models.op_types(packed)


def test_a_norm_in_half_precision_stays_in_front() -> None:
    replace = {
        "convert_element_type_default = Cast <to = 1> (x)": """two = Constant <value = float {2}> ()
      wide = Cast <to = 1> (x) square = Pow (wide, two) last = Constant <value = int64[1] {-1}> ()
      mean = ReduceMean (square, last) root = Sqrt (mean) wide_normed = Div (wide, root)
      normed = Cast <to = $element> (wide_normed) convert_element_type_default = Cast <to = 1> (normed)""",
        "mul_1 = Mul (x, mul)": "mul_1 = Mul (normed, mul)",
        "Sub (div, x)": "Sub (div, normed)",
        "Add (x, sub)": "Add (normed, sub)",
    }
    layer = models.pack(models.build("half_bias", replace=replace))[1][0]
    assert (layer.status, layer.norm) == (PACKED, "")
