"""Evaluate a constant that is split into a sequence of tensors, as torch.onnx writes ``chunk`` and ``split``.

A sequence is a numpy array of objects, one for each tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc.passes._refused import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    Array = NDArray[Any]

_MOST = 1024  # tensors of one sequence: each takes more memory than its elements may


def is_of_sequence(node: ir.Node) -> bool:
    """Whether ``evaluate`` computes the node."""
    return node.op_type in {"SplitToSequence", "SequenceAt"}


def evaluate(node: ir.Node, inputs: Sequence[Array | None]) -> Array:
    """The output of the node.

    Raises:
        Refused: there would be too many tensors.
        ValueError: an input is missing, or the parts are not those of the axis.
        IndexError: there is no such tensor or axis.
        ZeroDivisionError: the parts are empty.
    """
    array, second = (*inputs, None)[:2]
    if array is None:
        raise ValueError("it has no input")
    if node.op_type == "SequenceAt":
        if second is None or array.dtype != object:
            raise ValueError("it has no sequence, or no index")
        return np.asarray(array[int(second)])
    keeps_axis = second is not None or node.attributes.get_int("keepdims", 1) != 0
    return _split(array, second, node.attributes.get_int("axis", 0), keeps_axis=keeps_axis)


def _split(array: Array, sizes: Array | None, axis: int, *, keeps_axis: bool) -> Array:
    length = array.shape[axis]
    if sizes is not None and sizes.ndim:
        ends = np.cumsum(sizes)
    else:
        step = 1 if sizes is None else int(sizes)
        ends = np.arange(step, length + step, step).clip(max=length)
    if len(ends) > _MOST:
        raise Refused(
            f"its weight is split into {len(ends)} parts", fix="export the weights as plain tensors"
        )
    if (np.diff(ends, prepend=0) < 0).any() or not len(ends) or ends[-1] != length:
        raise ValueError(f"its parts end at {ends.tolist()}, of {length}")
    parts = np.empty(len(ends), object)
    for i, part in enumerate(np.split(array, ends[:-1], axis)):
        parts[i] = np.ascontiguousarray(part) if keeps_axis else np.squeeze(part, axis)
    return parts
