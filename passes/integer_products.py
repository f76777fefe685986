"""Products of quantised tensors in one op: their weights are told of, and they are not packed.

Their activations have scales and zero points of their own, which no op of ours has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bitcc.passes._refused import Refused
from bitcc.passes.elementwise import Elementwise

if TYPE_CHECKING:
    import onnx_ir as ir

    from bitcc.passes.constants import Constants


class _Inputs(NamedTuple):
    """Which input is the weight, and which is its zero point."""

    weight: int
    zero_point: int


_PRODUCTS = {
    ("", "ConvInteger"): _Inputs(1, 3),
    ("", "MatMulInteger"): _Inputs(1, 3),
    ("", "QLinearConv"): _Inputs(3, 5),
    ("", "QLinearMatMul"): _Inputs(3, 5),
    ("com.microsoft", "DynamicQuantizeMatMul"): _Inputs(1, 3),
    ("com.microsoft", "MatMulIntegerToFloat"): _Inputs(1, 5),
    ("com.microsoft", "QGemm"): _Inputs(3, 5),
}
CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv"})
"""Ops whose weights are filters, [outputs, inputs, ...]."""


def weight_input(node: ir.Node) -> int | None:
    """Which input is the weight of a product that is told of alone; None for any other node."""
    if (node.domain, node.op_type) == ("", "MatMulInteger"):  # without zero points it is packed
        return None
    found = _PRODUCTS.get((node.domain, node.op_type))
    return None if found is None or len(node.inputs) <= found.weight else found.weight


def without_zero_point(
    weight: Elementwise, node: ir.Node, constants: Constants, *, by_rows: bool
) -> Elementwise:
    """The weight of a node, less its zero point.

    Args:
        weight: As it is stored, matrices in its last two axes, or filters.
        node: What reads it.
        constants: Of the model.
        by_rows: Whether those matrices are [N, K].

    Raises:
        Refused: the zero point is not constant, or neither one number nor one for each output.
    """
    found = _PRODUCTS.get((node.domain, node.op_type))
    value = None if found is None else (*node.inputs, *[None] * 6)[found.zero_point]
    if value is None or weight.dtype.kind not in "iu" or constants.scalar(value) == 0:
        return weight
    zero = constants.array(value).astype(np.int32)
    if zero.size > 1:
        rank = len(weight.shape)
        axis = 0 if node.op_type in CONVOLUTIONS else rank - (2 if by_rows else 1)
        if zero.ndim != 1 or zero.size != weight.shape[axis]:
            raise Refused(f"its zero points are {list(zero.shape)}")
        zero = zero.reshape([-1 if i == axis else 1 for i in range(rank)])
    return Elementwise.of(weight.whole().astype(np.int32) - zero)
