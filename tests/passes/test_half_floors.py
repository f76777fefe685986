"""Floors of half-precision quantizers that fill a tensor when the model runs, rounded before or after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import pytest

from bitcc.facts import PACKED

if TYPE_CHECKING:
    import onnx

CODES, SCALE = models.quantized(models.latent())
FLOOR = float(np.float32(np.float16(1e-5)))
KNOWN = {
    "last": np.array([-1]),
    "eps": np.float32(1e-5),
    "eps16": np.float16(1e-5),
    "some": np.array([[[1e-5], [2e-5], [1e-5]]], np.float32),
    "127": np.float16(127),
    "-128": np.float16(-128),
    "w": (CODES.T * SCALE).astype(np.float16),
}
SIZES = "sizes = Shape (m) "
FLOORS = {
    "rounded and repeated": SIZES + "f = Expand (eps16, sizes)",
    "repeated and rounded": SIZES + "e = Expand (eps, sizes) f = Cast <to = 10> (e)",
    "repeated, reshaped and rounded": SIZES
    + "e = Expand (eps, sizes) g = Reshape (e, sizes) f = Cast <to = 10> (g)",
    "filled in half precision": SIZES + "f = ConstantOfShape <value = float16[1] {168}> (sizes)",  # the bits
    "filled and rounded": SIZES
    + "e = ConstantOfShape <value = float[1] {0.00001}> (sizes) f = Cast <to = 10> (e)",
}


def model(floor: str) -> onnx.ModelProto:
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      half (float[batch, 3, {models.K}] x) => (float[batch, 3, {models.N}] y) {{
        h = Cast <to = 10> (x) a = Abs (h) m = ReduceMax (a, last) {floor} c = Max (m, f)
        r = Reciprocal (c) s = Mul (r, "127") v = Mul (h, s) u = Round (v) q = Clip (u, "-128", "127")
        d = Div (q, s) p = MatMul (d, w) y = Cast <to = 1> (p) }}"""
    return models.parse(content, KNOWN)


@pytest.mark.parametrize("name", FLOORS)
def test_the_floor_is_the_rounded_number(name: str) -> None:
    packed, (layer,) = models.pack(model(FLOORS[name]))
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    (node,) = models.bit_linears(packed)
    assert models.attributes(node)["act_floor"] == FLOOR


def test_floors_of_unlike_tokens_are_not_read() -> None:
    floor = SIZES + "e = Expand (some, sizes) f = Cast <to = 10> (e)"
    (layer,) = models.pack(model(floor))[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
