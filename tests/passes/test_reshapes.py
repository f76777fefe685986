"""Tokens that are given another shape between their quantizer and the product, and perhaps back behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models.optimisers import onnxruntime_basic

from bitcc.facts import PACKED
from bitcc.passes.activation import match_activation
from bitcc.passes.constants import Constants
from bitcc.passes.inferred_shapes import inferred_shapes

if TYPE_CHECKING:
    from pathlib import Path

N, K = models.N, models.K
CODES, SCALE = models.quantized(models.latent())
KNOWN = {
    "w": np.ascontiguousarray(CODES.T) * np.float32(SCALE),
    "bias": np.linspace(-1, 1, N, dtype=np.float32),
    **models.QUANTIZER_CONSTANTS,
    "first": np.array([0]),
    "second": np.array([1]),
    "rows": np.array([-1, K]),
    "same_rows": np.array([0, K]),
    "pairs": np.array([-1, 2, K]),
    "by_two_and_three": np.array([2, 3, N]),
    "by_three_and_two": np.array([3, 2, N]),
    "by_three": np.array([-1, 3, N]),
    "outputs": np.array([N]),
    "training": np.bool_(1),
    "ratio": np.float32(0.5),
    "column": np.array([-1, 1]),
    "outputs_scale": np.linspace(0.5, 2, N, dtype=np.float32),
}


class Case(NamedTuple):
    """What is between quantizer and product, and behind it; ``left`` are the nodes beside the layer."""

    front: str
    back: str
    x: str = "2, 3"
    y: str = "2, 3"
    left: tuple[str, ...] = ()


STEPS = "d = Div (codes, scale) "
PRODUCT = " p = MatMul (q, w) "
SHAPE = " sizes = Shape <start = 0, end = 2> (x) shape = Concat <axis = 0> (sizes, outputs) "
CASES = {
    "rows": Case(STEPS + "q = Reshape (d, rows)", "y = Identity (p)", y="6", left=("Reshape", "Identity")),
    "rows, in two steps": Case(
        STEPS + "r = Reshape (d, rows) q = Reshape (r, same_rows)",
        "y = Identity (p)",
        y="6",
        left=("Reshape", "Reshape", "Identity"),
    ),
    "flat": Case(STEPS + "q = Flatten <axis = 2> (d)", "y = Add (p, bias)", y="6", left=("Flatten",)),
    "one batch less": Case(
        STEPS + "q = Squeeze (d, first)", "y = Add (p, bias)", x="1, 3", y="3", left=("Squeeze",)
    ),
    "one batch more": Case(
        STEPS + "q = Unsqueeze (d, first)", "y = Add (p, bias)", y="1, 2, 3", left=("Unsqueeze",)
    ),
    "one axis more, codes": Case(
        "q = Unsqueeze (codes, first)", "y = Div (p, scale)", y="1, 2, 3", left=("Unsqueeze",)
    ),
    "there and back": Case(
        STEPS + "q = Reshape (d, rows)", "r = Reshape (p, by_two_and_three) y = Add (r, bias)"
    ),
    "there and back, codes": Case(
        "q = Reshape (codes, rows)", "b = Add (p, bias) r = Reshape (b, by_two_and_three) y = Div (r, scale)"
    ),
    "there and back, any batch": Case(
        "q = Reshape (codes, rows)", "r = Reshape (p, by_three) y = Div (r, scale)", "batch, 3", "batch, 3"
    ),
    "there and back, any shape": Case(
        "q = Reshape (codes, rows)", SHAPE + "r = Reshape (p, shape) y = Div (r, scale)", "a, b", "a, b"
    ),
    "there and back, without an axis": Case(
        "q = Squeeze (codes, first)", "r = Unsqueeze (p, first) y = Div (r, scale)", "1, 3", "1, 3"
    ),
    "there, and elsewhere": Case(
        STEPS + "q = Reshape (d, rows)",
        "y = Reshape (p, by_three_and_two)",
        y="3, 2",
        left=("Reshape", "Reshape"),
    ),
    "there with its scale, and back": Case(
        "q = Reshape (codes, rows)",
        SHAPE + "t = Reshape (scale, column) v = Div (p, t) y = Reshape (v, shape)",
        "a, b",
        "a, b",
        left=("Shape", "Concat", "Reshape", "Reshape"),
    ),
    "there with a product of scales": Case(
        "q = Reshape (codes, rows)",
        "t = Reshape (scale, column) u = Reciprocal (t) v = Mul (outputs_scale, u) y = Mul (p, v)",
        y="6",
        left=("Reshape",),
    ),
    "rows in another order": Case(
        STEPS + "t = Transpose <perm = [1, 0, 2]> (d) q = Reshape (t, rows)",
        "y = Identity (p)",
        y="6",
        left=("Transpose", "Reshape", "Identity"),
    ),
    "rows in another order, which seem to be given back": Case(
        STEPS + "t = Transpose <perm = [1, 0, 2]> (d) q = Reshape (t, rows)",
        "y = Reshape (p, by_two_and_three)",
        left=("Transpose", "Reshape", "Reshape"),
    ),
    "rows that are moved to where they are": Case(
        STEPS + "t = Transpose <perm = [0, 1, 2]> (d) q = Reshape (t, rows)",
        "y = Identity (p)",
        y="6",
        left=("Reshape", "Identity"),
    ),
    "a Dropout in front": Case(STEPS + "q = Dropout (d)", "y = Add (p, bias)"),
    "a Dropout behind": Case(STEPS + "q = Identity (d)", "r, mask = Dropout (p, ratio) y = Add (r, bias)"),
}


def model(case: Case) -> onnx.ModelProto:
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      shapes (float[{case.x}, {K}] x) => (float[{case.y}, {N}] y)
      {{ {models.quantizer()} {case.front} {PRODUCT} {case.back} }}"""
    return models.parse(content, KNOWN)


@pytest.mark.parametrize("name", CASES)
def test_the_layer_is_computed_with_integer_kernels(name: str) -> None:
    original = model(CASES[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    left = [op for op in models.op_types(models.assert_same(original)) if op != "BitLinear"]
    assert tuple(left) == CASES[name].left


OTHERS = {
    "an axis that the Reshape behind makes three": Case(
        "q = Reshape (codes, rows)",
        "r = Reshape (p, by_three) y = Div (r, scale)",
        "batch, tokens",
        "batch, 3",
    ),
    "scales that meet other tokens": Case(
        "q = Reshape (codes, pairs)", "y = Div (p, scale)", "2, 1", "2, 2", left=()
    ),
    "a scale that is reshaped otherwise than the tokens": Case(
        "q = Reshape (codes, pairs)", "t = Reshape (scale, column) y = Div (p, t)", "2, 1", "1, 2"
    ),
    "a scale that is reshaped while the tokens are not": Case(
        "q = Identity (codes)", "t = Reshape (scale, column) y = Div (p, t)", "1, 3", "1, 3"
    ),
    "scales in front of rows in another order": Case(
        "t = Transpose <perm = [1, 0, 2]> (codes) q = Reshape (t, rows)",
        "r = Reshape (p, by_two_and_three) y = Div (r, scale)",
    ),
    "columns among the rows": Case(
        STEPS + "t = Transpose <perm = [2, 1, 0]> (d) q = Reshape (t, rows)", "y = Identity (p)", y="6"
    ),
    "pairs in another order": Case(
        STEPS + "r = Reshape (d, pairs) t = Transpose <perm = [1, 0, 2]> (r) q = Reshape (t, rows)",
        "y = Identity (p)",
        x="3, 2",
        y="6",
    ),
    "an axis between the tokens": Case(
        "q = Unsqueeze (codes, second)", "y = Div (p, scale)", x="3, 3", y="3, 3, 3"
    ),
    "a Dropout of training": Case(
        STEPS + "q = Dropout <seed = 1> (d, ratio, training)", "y = Identity (p)", x="2, 3"
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_meets_other_scales_keeps_its_quantizer(name: str) -> None:
    original = model(OTHERS[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    if "training" not in name:
        models.assert_same(original)


def test_a_wrong_declaration_is_not_believed() -> None:
    """The file says that the output has the shape of the input; the Reshape says otherwise."""
    original = model(CASES["there, and elsewhere"]._replace(y="2, 3"))
    (layer,) = models.pack(original)[1]
    assert layer.activation == "float"
    packed, _ = models.pack(original)
    x = models.tokens(2, 3)
    for got, want in zip(models.run(packed, x), models.run(original, x), strict=True):
        assert models.largest_difference(got, want) < 1e-5


def test_a_bias_in_front_of_the_scale_behind_onnxruntimes_optimiser(tmp_path: Path) -> None:
    """MatMul and Add become Reshape, Gemm and Reshape; the scale stays behind them."""
    case = Case("q = Identity (codes)", "b = Add (p, bias) y = Div (b, scale)")
    onnx.save(model(case), tmp_path / "model.onnx")
    onnxruntime_basic(tmp_path / "model.onnx", tmp_path / "optimised.onnx")
    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert models.op_types(optimised).count("Reshape") == 2
    assert models.op_types(models.assert_same(optimised)) == ["BitLinear"]


def test_siblings_behind_the_same_reshape_are_one_layer() -> None:
    """Copies of one Reshape are one; a Flatten, which makes the same shape, is not."""
    body = """
      a = Reshape (d, rows) b = Flatten <axis = 2> (d) c = Reshape (d, rows)
      u = MatMul (a, w1) v = MatMul (b, w2) t = MatMul (c, w3) s = Add (u, v) y = Add (s, t)"""
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      shapes (float[2, 3, {K}] x) => (float[6, 30] y) {{ {models.quantizer()} {STEPS} {body} }}"""
    weights = {f"w{i}": np.float32(i) * np.roll(KNOWN["w"], i, axis=0)[:, :30] for i in (1, 2, 3)}
    original = models.parse(content, {**KNOWN, **weights})
    packed, facts = models.pack(original)
    assert [bool(fact.merged) for fact in facts] == [True, False, True]
    assert models.op_types(packed).count("BitLinear") == 2
    x = models.tokens(2, 3)
    (got,), (want,) = models.run(packed, x), models.run(original, x)
    assert models.largest_difference(got, want) < 1e-5


THERE_AND_BACK_13 = """
  a = Abs (x) m = ReduceMax <axes = [-1]> (a) c = Clip (m, eps) inverse = Reciprocal (c)
  scale = Mul (inverse, "127") v = Mul (x, scale) u = Round (v) codes = Clip (u, "-128", "127")
  q = Reshape (codes, rows) p = MatMul (q, w) sizes = Shape (x)
  n0 = Gather ({}, first) n1 = Gather ({}, second) shape = Concat <axis = 0> (n0, n1, outputs)
  r = Reshape (p, shape) y = Div (r, scale)
"""


@pytest.mark.parametrize(("first", "activation"), [("sizes", "int8_token"), ("swapped", "float")])
def test_shapes_that_are_computed_in_the_oldest_opset(first: str, activation: str) -> None:
    """Sizes that are gathered one by one, as TorchScript writes ``view``; swapped, they are of others."""
    body = THERE_AND_BACK_13.format(first, first)
    if first == "swapped":
        order = "order = Constant <value_ints = [1, 0, 2]> () swapped = Gather (sizes, order) "
        body = body.replace("n0 =", order + "n0 =")
    content = f"""
      <ir_version: 8, opset_import: ["" : 13]>
      shapes (float[a, b, {K}] x) => (float[a, b, {N}] y) {{ {body} }}"""
    (layer,) = models.pack(models.parse(content, KNOWN))[1]
    assert (layer.status, layer.activation) == (PACKED, activation)


@pytest.mark.parametrize(("order", "activation"), [("0, 1", "int8_token"), ("1, 0", "float")])
def test_a_shape_that_a_tool_did_not_follow_is_inferred_again(order: str, activation: str) -> None:
    """The tool onnxsim writes sizes with names of its own behind a Reshape to a computed shape."""
    shape = SHAPE.replace(
        "(x) ", f"(x) order = Constant <value_ints = [{order}]> () s = Gather (sizes, order) "
    )
    body = f"""{models.quantizer()} q = Reshape (codes, rows) {PRODUCT}
      {shape.replace("(sizes, outputs)", "(s, outputs)")} r = Reshape (p, shape) y = Div (r, scale)"""
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      shapes (float[a, b, {K}] x) => (float[a, b, {N}] y) <float[unk__0, unk__1, unk__2] r> {{ {body} }}"""
    original = models.parse(content, KNOWN)
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, activation)


@pytest.mark.parametrize(("given", "restored"), [("int64[2]", True), ("int64[n]", False)])
def test_a_reshape_in_front_is_undone_if_it_is_known_to_make_no_more_axes(
    given: str, *, restored: bool
) -> None:
    """With more of them a token could be a part of a row."""
    original = models.parse(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        reshaped (float[2, 3, {K}] x, {given} sizes) => (float[2, 3, {K}] q) <float[6, {K}] d> {{
          t = Reshape (x, sizes) {models.quantizer("t")} {STEPS} q = Reshape (d, by_two_and_three) }}""",
        {**KNOWN, "by_two_and_three": np.array([2, 3, K])},
    )
    graph = ir.from_proto(original)
    with inferred_shapes(graph):
        assert match_activation(graph.graph.outputs[0], K, Constants(graph)).restored is restored
