"""Reductions of constants, in float64 and block by block: nothing as large as the weights is made."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc.passes.elementwise import Elementwise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

    Array = NDArray[Any]


def is_reduction(node: ir.Node) -> bool:
    """Whether ``reduce`` computes the node."""
    return node.op_type in _REDUCTIONS


def reduce(node: ir.Node, array: Array | Elementwise, axes: Array | None) -> Array | Elementwise:
    """The result of a reduction, in the type of ``array``.

    Args:
        node: The reduction.
        array: Its first input.
        axes: Its second, where the opset has one.

    Raises:
        ValueError: there is no such axis.
    """
    over = list(node.attributes.get_ints("axes") or () if axes is None else axes.reshape(-1).tolist())
    if not over and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        return array
    rank = len(array.shape)
    if any(not -rank <= axis < rank for axis in over):
        raise ValueError(f"axes {over} of a tensor of rank {rank}")
    axis = tuple(sorted({a % rank for a in over})) or tuple(range(rank))
    prepare, finish = _REDUCTIONS[node.op_type]
    wide = np.float64 if array.dtype.kind not in "iub" else array.dtype
    parts = (np.sum(prepare(block, wide), axis=axis, keepdims=True, dtype=wide) for block in _blocks(array))
    total = functools.reduce(np.add, parts) if 0 in axis or not rank else np.concatenate(list(parts))
    result = np.asarray(finish(total, math.prod(array.shape[a] for a in axis))).astype(array.dtype)
    return result if node.attributes.get_int("keepdims", 1) != 0 else np.squeeze(result, axis)


def _blocks(array: Array | Elementwise) -> Iterator[Array]:
    if isinstance(array, Elementwise):
        yield from (array.rows(rows) for rows in array.block_rows())
    else:
        yield array


def _plain(block: Array, _: Any) -> Array:
    return block


def _absolute(block: Array, _: Any) -> Array:
    return np.abs(block)


def _square(block: Array, wide: Any) -> Array:
    return np.asarray(np.square(block.astype(wide)))


def _total(total: Array, _: int) -> Array:
    return total


def _mean(total: Array, count: int) -> Array:
    return total / count


def _root(total: Array, _: int) -> Array:
    return np.asarray(np.sqrt(total))


_REDUCTIONS: dict[str, tuple[Callable[[Array, Any], Array], Callable[[Array, int], Array]]] = {
    "ReduceMean": (_plain, _mean),
    "ReduceSum": (_plain, _total),
    "ReduceL1": (_absolute, _total),
    "ReduceL2": (_square, _root),
    "ReduceSumSquare": (_square, _total),
}
