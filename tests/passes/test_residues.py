"""Straight-through residues of another tensor than the one that is quantised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import pytest

from bitcc.facts import PACKED

if TYPE_CHECKING:
    import onnx

K, N = models.K, models.N
_CODES, _SCALE = models.quantized(models.latent())
_VALUES = {
    "w": np.ascontiguousarray(_CODES.T) * np.float32(_SCALE),
    "last": np.array([-1]),
    "first": np.array([0]),
    "second": np.array([1]),
    "eps": np.float32(1e-5),
    "half": np.float32(0.5),
    "most": np.float32(1e4),
    "least": np.float32(-1e4),
    "qmax": np.float32(127),
    "low": np.float32(-128),
    "gain": np.linspace(0.5, 2, K, dtype=np.float32),
}
QUANTIZER = """a = Abs (h) m = ReduceMax <keepdims = 1> (a, last) c = Clip (m, eps) r = Reciprocal (c)
  s = Mul (r, qmax) v = Mul (h, s) u = Round (v) codes = Clip (u, low, qmax) d = Div (codes, s)"""
RESIDUE = "e = Sub (d, x) q = Add (x, e)"
CLIP = "h = Clip (x, least, most)"


def model(front: str, residue: str = RESIDUE) -> onnx.ModelProto:
    """A layer of ``h``, which is made of x."""
    return models.parse(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        layer (float[2, 3, {K}] x) => (float[2, 3, {N}] y) {{
          {front} {QUANTIZER} {residue} y = MatMul (q, w) }}""",
        _VALUES,
    )


SPELLED = {
    "a clip": (CLIP, RESIDUE),
    "a mask": ("b = Abs (x) g = Greater (b, half) k = Cast <to = 1> (g) h = Mul (x, k)", RESIDUE),
    "a norm": ("t = ReduceL2 (x, last) n = Div (x, t) h = Mul (n, gain)", RESIDUE),
    "a residue that is subtracted": (CLIP, "e = Sub (x, d) q = Sub (x, e)"),
    "a residue that is added first": (CLIP, "e = Add (d, x) q = Sub (e, x)"),
}


@pytest.mark.parametrize(("front", "residue"), SPELLED.values(), ids=SPELLED)
def test_it_does_not_keep_the_quantizer(front: str, residue: str) -> None:
    original = model(front, residue)
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    packed = models.assert_same(original)
    assert not {"Round", "Add", "Sub"} & set(models.op_types(packed))


OTHERS = {
    "of two tensors": (CLIP, "e = Sub (d, h) q = Add (x, e)"),
    "of a larger tensor": ("h = Slice (x, first, second, first)", RESIDUE),
}


@pytest.mark.parametrize(("front", "residue"), OTHERS.values(), ids=OTHERS)
def test_what_the_layer_depends_on_keeps_the_quantizer(front: str, residue: str) -> None:
    original = model(front, residue)
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    assert layer.fix
    models.assert_same(original)
