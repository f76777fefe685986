"""Scales of tokens that get their axes in one shape or another, and quantizers of tokens in rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import pytest

from bitcc.facts import PACKED

if TYPE_CHECKING:
    import onnx

N, K = models.N, models.K
CODES, SCALE = models.quantized(models.latent())
KNOWN = {
    "w": np.ascontiguousarray(CODES.T) * np.float32(SCALE),
    **models.QUANTIZER_CONSTANTS,
    "one": np.float32(1),
    "zero": np.float32(0),
    "zero_point": np.int8(0),
    "other_point": np.int8(3),
    "last": np.array([-1]),
    "first": np.array([0]),
    "rows": np.array([-1, K]),
    "tokens": np.array([2, 3, 1]),
    "whole": np.array([2, 3, K]),
    "outputs": np.array([2, 3, N]),
    "outer": np.array([6, 1, 1, 1]),
    "across": np.array([1, K]),
    "down": np.array([2, 1]),
    "halves": np.array([2, 3, 2, K // 2]),
}
FLAT = "f = Reshape (x, rows) "
DIVIDED = "v = Div (x, step) u = Round (v) codes = Clip (u, low, high) "
STEP = 'step = Div (b, "127") '
MAXIMUM = "a = Abs (x) m = ReduceMax <keepdims = 0> (a, axis) "
LAST = 'low = Identity ("-128") high = Identity ("127") '
BACK = "q = Mul (codes, step) y = MatMul (q, w)"
SHAPES = {
    "the maximum": MAXIMUM + "t = Reshape (m, tokens) b = Clip (t, eps) " + STEP + DIVIDED + BACK,
    "the step": MAXIMUM + 'b = Clip (m, eps) s = Div (b, "127") step = Reshape (s, tokens) ' + DIVIDED + BACK,
    "a reciprocal behind its axis": MAXIMUM
    + 's = Div (m, "127") b = Clip (s, eps) step = Unsqueeze (b, last) r = Reciprocal (step) v = Mul (x, r)'
    + "u = Round (v) codes = Clip (u, low, high)"
    + BACK,
    "the maximum of rows": FLAT
    + "a = Abs (f) m = ReduceMax <keepdims = 0> (a, axis) b = Clip (m, eps) "
    + 's = Div (b, "127") step = Reshape (s, tokens) '
    + DIVIDED
    + BACK,
    "magnitudes in rows": "g = Abs (x) a = Reshape (g, rows) m = ReduceMax (a, axis) b = Clip (m, eps) "
    's = Div (b, "127") step = Reshape (s, tokens) ' + DIVIDED + BACK,
    "a step for each column": FLAT
    + "a = Abs (f) m = ReduceMax (a, axis) b = Clip (m, eps) "
    + 's = Div (b, "127") t = Tile (s, across) step = Reshape (t, whole) '
    + DIVIDED
    + BACK,
    "zero of rows": FLAT
    + 'a = Abs (f) m = ReduceMax <keepdims = 0> (a, axis) s = Div (m, "127") c = Unsqueeze (s, last) '
    + "t = Tile (c, across) z = Equal (m, zero) d = Unsqueeze (z, last) g = Where (d, one, t) "
    + "step = Reshape (g, whole) "
    + DIVIDED
    + BACK,
    "both ends of rows": FLAT
    + "above = ReduceMax (f, axis) below = ReduceMin (f, axis) n = Abs (below) m = Max (above, n) "
    + 'b = Clip (m, eps) s = Div (b, "127") step = Reshape (s, tokens) '
    + DIVIDED
    + BACK,
    "both ends by negation": "above = ReduceMax (x, axis) n = Neg (x) below = ReduceMax (n, axis) "
    "m = Max (above, below) b = Clip (m, eps) " + STEP + DIVIDED + BACK,
    "codes in rows": FLAT
    + 'a = Abs (f) m = ReduceMax (a, axis) b = Clip (m, eps) step = Div (b, "127") v = Div (f, step) '
    + "u = Round (v) codes = Clip (u, low, high) d = Mul (codes, step) q = Reshape (d, whole) "
    + "y = MatMul (q, w)",
    "codes in rows, and their scale": FLAT
    + 'a = Abs (f) m = ReduceMax (a, axis) b = Clip (m, eps) step = Div (b, "127") v = Div (f, step) '
    + "u = Round (v) codes = Clip (u, low, high) c = Reshape (codes, whole) t = Reshape (step, tokens) "
    + "q = Mul (c, t) y = MatMul (q, w)",
    "codes in rows, scaled at the end": FLAT
    + 'a = Abs (f) m = ReduceMax (a, axis) b = Clip (m, eps) step = Div (b, "127") v = Div (f, step) '
    + "u = Round (v) codes = Clip (u, low, high) c = Reshape (codes, whole) t = Reshape (step, tokens) "
    + "p = MatMul (c, w) y = Mul (p, t)",
    "a constant in front of the product": "a = Abs (x) m = ReduceMax (a, axis) b = Clip (m, eps) "
    'n = Div (x, b) v = Mul (n, "127") u = Round (v) codes = Clip (u, low, high) q = Div (codes, "127") '
    "p = MatMul (q, w) y = Mul (p, b)",
    "a residue of the normalised tensor": "a = Abs (x) m = ReduceMax (a, axis) b = Clip (m, eps) "
    'n = Div (x, b) v = Mul (n, "127") u = Round (v) codes = Clip (u, low, high) d = Div (codes, "127") '
    "e = Sub (d, n) g = Add (n, e) q = Mul (g, b) y = MatMul (q, w)",
    "a zero point of integers": MAXIMUM
    + "t = Reshape (m, tokens) b = Clip (t, eps) "
    + STEP
    + "z = Cast <to = 1> (zero_point) v = Div (x, step) u = Round (v) o = Add (u, z) "
    + "codes = Clip (o, low, high)"
    + BACK,
}
OTHERS = {
    "an outer product of tokens": MAXIMUM
    + 't = Reshape (m, outer) b = Clip (t, eps) step = Div (b, "127") '
    + DIVIDED
    + "q = Mul (codes, step) y = MatMul (q, w)",
    "rows of half the columns": "h = Reshape (x, halves) a = Abs (h) m = ReduceMax (a, axis) "
    'b = Clip (m, eps) step = Div (b, "127") v = Div (h, step) u = Round (v) '
    "codes = Clip (u, low, high) d = Mul (codes, step) q = Reshape (d, whole) y = MatMul (q, w)",
    "a step that is tiled over tokens": "k = Gather <axis = 0> (x, first) g = Squeeze (k, first) "
    "a = Abs (g) m = ReduceMax (a, axis) b = Clip (m, eps) "
    's = Div (b, "127") t = Tile (s, down) step = Reshape (t, tokens) ' + DIVIDED + BACK,
    "a constant in front, and no scale behind": "a = Abs (x) m = ReduceMax (a, axis) b = Clip (m, eps) "
    'n = Div (x, b) v = Mul (n, "127") u = Round (v) codes = Clip (u, low, high) q = Div (codes, "127") '
    "y = MatMul (q, w)",
    "a zero point that is not zero": MAXIMUM
    + "t = Reshape (m, tokens) b = Clip (t, eps) "
    + STEP
    + "z = Cast <to = 1> (other_point) v = Div (x, step) u = Round (v) o = Add (u, z) "
    + "codes = Clip (o, low, high)"
    + BACK,
    "the negation of something else": "above = ReduceMax (x, axis) h = Add (x, one) n = Neg (h) "
    "below = ReduceMax (n, axis) m = Max (above, below) b = Clip (m, eps) " + STEP + DIVIDED + BACK,
}


def model(body: str) -> onnx.ModelProto:
    y = "6, 2, 3" if "outer" in body else "2, 3"
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      tokens (float[2, 3, {K}] x) => (float[{y}, {N}] y) {{ {LAST} {body} }}"""
    return models.parse(content, KNOWN)


@pytest.mark.parametrize("name", SHAPES)
def test_the_layer_is_computed_with_integer_kernels(name: str) -> None:
    original = model(SHAPES[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    assert models.op_types(models.assert_same(original)) == ["BitLinear"]


@pytest.mark.parametrize("name", OTHERS)
def test_what_meets_other_tokens_keeps_its_quantizer(name: str) -> None:
    original = model(OTHERS[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    models.assert_same(original)
