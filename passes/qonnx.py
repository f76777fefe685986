"""Evaluate the quantizers of QONNX, which brevitas and hls4ml write, and no ONNX runtime knows.

    Quant:         (round(clamp(x / scale + zero_point, low, high)) - zero_point) * scale
    BipolarQuant:  (1 if x >= 0 else -1) * scale

Source: qonnx, docs/qonnx-custom-ops, and arXiv 2206.07527.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    Array = NDArray[Any]

DOMAINS = frozenset({"qonnx.custom_op.general", "onnx.brevitas"})
_OPS = frozenset({"Quant", "IntQuant", "BipolarQuant"})
_ROUNDING: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "ROUND_TO_ZERO": np.trunc,
}


def is_quantizer(node: ir.Node) -> bool:
    """Whether the node is one of them."""
    return node.domain in DOMAINS and node.op_type in _OPS


def bounds(node: ir.Node, bits: float) -> tuple[float, float] | None:
    """Of the codes; None where they are the signs, as those of one signed bit are."""
    signed, narrow = (node.attributes.get_int(*pair) != 0 for pair in (("signed", 1), ("narrow", 0)))
    if signed and bits == 1:
        return None
    if signed:
        return narrow - 2.0 ** (bits - 1), 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1 - narrow


def evaluate(node: ir.Node, inputs: Sequence[Array | None]) -> Array:
    """The output of a quantizer, in the type of its input.

    Raises:
        ValueError: an input is missing, or an attribute is not known.
    """
    arrays = [array for array in inputs if array is not None]
    if len(arrays) != (2 if node.op_type == "BipolarQuant" else 4):
        raise ValueError(f"it has {len(arrays)} inputs")
    x, scale = arrays[:2]
    if node.op_type == "BipolarQuant":
        return np.asarray(np.where(x >= 0, scale, -scale), x.dtype)
    _, _, zero_point, bits = arrays
    width = float(bits.reshape(()))
    if width < 1:
        raise ValueError(f"it has {width:g} bits")
    scaled = x / scale + zero_point
    signs = np.where(scaled >= 0, 1.0, -1.0)
    limits = bounds(node, width)
    levels = signs if limits is None else _rounding(node)(np.clip(scaled, *limits))
    return np.asarray((levels - zero_point) * scale, x.dtype)


def _rounding(node: ir.Node) -> Callable[[Array], Array]:
    mode = node.attributes.get_string("rounding_mode", "ROUND") or ""
    if mode.upper() not in _ROUNDING:
        raise ValueError(f"the rounding mode `{mode}` is not known")
    return _ROUNDING[mode.upper()]
