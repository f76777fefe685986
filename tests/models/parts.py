"""A BitLinear that is put together of parts, so that a test can spell one of them otherwise."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from models.building import parse
from models.weights import K, N, latent, quantized

if TYPE_CHECKING:
    import onnx

_PARTS = {
    "magnitude": "a = Abs (x)",
    "maximum": "m = ReduceMax <keepdims = 1> (a, last)",
    "bounded": "c = Clip (m, eps)",
    "scaled": "r = Reciprocal (c) scale = Mul (r, qmax) v = Mul (x, scale)",
    "rounded": "u = Round (v) codes = Clip (u, low, qmax)",
    "dequantised": "q = Div (codes, scale)",
    "product": "y = MatMul (q, w)",
}
_CODES, _SCALE = quantized(latent())
_KNOWN = {
    "w": np.ascontiguousarray(_CODES.T) * np.float32(_SCALE),
    "last": np.array([-1]),
    "first": np.array([0]),
    "eps": np.float32(1e-5),
    "zero": np.float32(0),
    "minus": np.float32(-1),
    "k": np.array([1]),
    "qmax": np.float32(127),
    "middle": np.float32(127.5),
    "low": np.float32(-128),
    "one": np.float32(1),
    "most": np.float32(np.finfo(np.float32).max),
    "column": np.array([[[0.01]]], np.float32),
    "inverse": np.float32(1) / np.float32(127),
    "written": np.float32(0.00787),
    "filled": np.full((2, 3, 1), 1e-5, np.float32),
    "unlike": np.linspace(1e-5, 1e-4, 6, dtype=np.float32).reshape(2, 3, 1),
    "pairs": np.array([2, 3 * K]),
    "infinity": np.float32(np.inf),
    "many": np.array([20, 30, K]),
    "start": np.array([0]),
    "swapped": np.array([1, 0, 2]),
    "two": np.float32(2),
    "beyond": np.array([10**9]),
    "fifty": np.array([50]),
}


def assemble(*, rows: str = "2, 3", front: str = "", **parts: str) -> onnx.ModelProto:
    """A layer [rows, K] -> [rows, N] of the parts in ``_PARTS``, and of others in the place of some.

    Args:
        rows: The leading dimensions.
        front: An op in front of the layer, which then reads ``h`` where the parts say ``x``; ``sizes`` is the
            shape of what the op reads.
        parts: Text for some of ``magnitude``, ``maximum``, ``bounded``, ``scaled``, ``rounded``,
            ``dequantised`` and ``product``.
    """
    body = " ".join({**_PARTS, **parts}.values())
    if front:
        body = f"sizes = Shape (x) h = {front} (x) " + re.sub(r"\bx\b", "h", body)
    x, y = (", ".join(filter(None, (rows, str(columns)))) for columns in (K, N))
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      layer (float[{x}] x) => (float[{y}] y) {{ {body} }}"""
    return parse(content, _KNOWN)
