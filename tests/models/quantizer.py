"""The activation quantizer as ONNX text, for graphs that a test writes around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

QUANTIZER_CONSTANTS: Mapping[str, NDArray[Any] | np.float32] = {
    "axis": np.array([-1]),
    "eps": np.float32(1e-5),
    "127": np.float32(127),
    "-128": np.float32(-128),
}
"""What ``quantizer`` reads."""

_NODES = """
  magnitude = Abs ({x})
  largest = ReduceMax <keepdims = 1> (magnitude, axis)
  bounded = Clip (largest, eps)
  inverse = Reciprocal (bounded)
  scale = Mul (inverse, "127")
  scaled = Mul ({x}, scale)
  rounded = Round (scaled)
  codes = Clip (rounded, "-128", "127")
"""


def quantizer(x: str = "x") -> str:
    """Nodes that make ``codes`` and ``scale`` of ``x``; it reads ``QUANTIZER_CONSTANTS``."""
    return _NODES.format(x=x)
