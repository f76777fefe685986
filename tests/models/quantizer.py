"""The activation quantizer as ONNX text, for graphs that a test writes around it."""

from __future__ import annotations

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
    """Nodes that make ``codes`` and ``scale`` of ``x``; ``axis``, ``eps``, -128 and 127 are constants."""
    return _NODES.format(x=x)
