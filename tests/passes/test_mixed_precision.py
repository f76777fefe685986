"""Layers of which a part is in half precision, as casts around an attention leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import pytest
from onnx import helper

from bitcc.facts import PACKED

if TYPE_CHECKING:
    import onnx

K, N = models.K, models.N
QUANTIZER = """a = Abs (x) m = ReduceMax <keepdims = 1> (a, last) c = Clip (m, eps) r = Reciprocal (c)
  s = Mul (r, qmax) v = Mul (x, s) u = Round (v) codes = Clip (u, low, qmax)"""
STEP = """wa = Cast <to = 1> (w) wb = Abs (wa) wm = ReduceMean <keepdims = 0> (wb) wr = Reciprocal (wm)
  r16 = Cast <to = 10> (wr) wv = Mul (w, r16) wu = Round (wv) wc = Clip (wu, minus, one) wq = Div (wc, r16)
  we = Sub (wq, w) wn = Add (w, we)"""


def model(body: str, kind: str, values: dict[str, object]) -> onnx.ModelProto:
    """A layer [2, 3, K] -> [2, 3, N] of one type of floats."""
    numbers = {"eps": 1e-5, "qmax": 127, "low": -128, "one": 1, "minus": -1}
    dtype = {"float": np.float32, "float16": np.float16}[kind]
    known = {name: np.array(number, dtype) for name, number in numbers.items()}
    content = f"""<ir_version: 10, opset_import: ["" : 18]>
      layer ({kind}[2, 3, {K}] x) => ({kind}[2, 3, {N}] y) {{ {QUANTIZER} {body} }}"""
    return models.parse(content, {**known, "last": np.array([-1]), **values})


def test_the_noise_of_a_residue_in_half_precision_may_be_read_in_float32() -> None:
    """A product that reads float32 of a layer whose weights are in half precision, residue and all."""
    half = {"w": models.latent("heavy").astype(np.float16)}
    half |= {name: np.array(number, np.float16) for name, number in (("minus", -1), ("one", 1))}
    body = f"{STEP} t = Transpose (wn) w32 = Cast <to = 1> (t) q = Div (codes, s) y = MatMul (q, w32)"
    original = model(body, "float", half)
    packed, (layer,) = models.pack(original)
    assert (layer.status, layer.activation, layer.numerics) == (PACKED, "int8_token", "snapped")
    assert layer.weight_error is not None
    assert 1e-4 < layer.weight_error < 1e-2
    assert models.op_types(packed) == ["BitLinear"]
    x = models.tokens(2, 3)
    assert models.largest_difference(models.run(packed, x)[0], models.run(original, x)[0]) < 1e-2


@pytest.mark.parametrize("half", models.HALVES)
def test_a_scale_that_is_rounded_in_front_of_a_residue_is_the_rounded_one(half: str) -> None:
    """``w + (round16(q) - w)`` in float32."""
    to = helper.np_dtype_to_tensor_dtype(np.dtype(models.HALVES[half]))
    body = f"""wv = Mul (w, inverse) wu = Round (wv) wc = Clip (wu, minus, one) wq = Div (wc, inverse)
      narrow = Cast <to = {to}> (wq) wide = Cast <to = 1> (narrow) we = Sub (wide, w) wn = Add (w, we)
      t = Transpose (wn) q = Div (codes, s) y = MatMul (q, t)"""
    inverse = np.float32(1) / np.float32(models.quantized(models.latent())[1])
    original = model(body, "float", {"w": models.latent(), "inverse": inverse})
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "int8_token")
    exact = np.float32(1) / inverse
    assert layer.scale == exact.astype(models.HALVES[half]).astype(np.float32) != exact
    models.assert_same(original)


def test_integer_sums_of_a_layer_in_half_precision_are_read_in_it() -> None:
    codes, scale = models.quantized(models.latent())
    weights = {"w": codes.T.astype(np.int32), "scale": np.float16(scale)}
    body = """i = Cast <to = 6> (codes) sums = MatMul (i, w) f = Cast <to = 10> (sums) g = Mul (f, scale)
      y = Div (g, s)"""
    original = model(body, "float16", weights)
    packed, (layer,) = models.pack(original)
    assert (layer.status, layer.activation, layer.numerics) == (PACKED, "int8_token", "float32")
    x = models.tokens(2, 3).astype(np.float16)
    got, want = (models.run(m, x)[0].astype(np.float32) for m in (packed, original))
    assert models.largest_difference(got, want) < 2e-2
    assert "BitLinear" in models.op_types(packed)
