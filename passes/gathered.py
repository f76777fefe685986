"""Evaluate GatherElements for fewer rows of indices than of data, as torch.onnx writes ``quantile``.

onnx's evaluator takes only indices of the data's shape but for the axis; runtimes take all that fit in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    Array = NDArray[Any]


def is_gather_elements(node: ir.Node) -> bool:
    """Whether ``evaluate`` computes the node."""
    return node.op_type == "GatherElements"


def evaluate(node: ir.Node, inputs: Sequence[Array | None]) -> Array:
    """``data[i, j, index[i, j, k]]`` for the last axis, and so on.

    Raises:
        ValueError: an input is missing, or the indices do not fit in.
        IndexError: there is no such element.
    """
    data, index = (*inputs, None)[:2]
    axis = node.attributes.get_int("axis", 0) or 0
    if data is None or index is None or data.ndim != index.ndim or not -data.ndim <= axis < data.ndim:
        raise ValueError("its inputs are not of one rank")
    axis %= data.ndim
    if any(m > n for a, (m, n) in enumerate(zip(index.shape, data.shape, strict=True)) if a != axis):
        raise ValueError(f"its indices are {list(index.shape)}, of data {list(data.shape)}")
    within = tuple(slice(None) if a == axis else slice(size) for a, size in enumerate(index.shape))
    return np.take_along_axis(data[within], index, axis)
