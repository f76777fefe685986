"""Reductions of constants, in float64 and block by block: nothing as large as the weights is made.

The sum of what is a function of 8 or 16 bits is that of each pattern of bits, times how often it occurs.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc.passes.elementwise import Elementwise

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.passes.table import Table

    Array = NDArray[Any]
    Prepare = Callable[[Array, Any], Array]


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
    content = array if isinstance(array, Elementwise) else Elementwise.of(array)
    is_half = array.dtype.itemsize == 2  # which numpy adds slowly
    if len(axis) == rank and wide is np.float64 and (is_half or content.is_looked_up) and content.table:
        total = _sum_of_patterns(content, content.table, prepare)
    else:
        parts = (_sum(prepare(content.rows(rows), wide), axis, wide) for rows in content.block_rows())
        total = functools.reduce(np.add, parts) if 0 in axis else np.concatenate(list(parts))
    result = np.asarray(finish(total, math.prod(array.shape[a] for a in axis))).astype(array.dtype)
    return result if node.attributes.get_int("keepdims", 1) != 0 else np.squeeze(result, axis)


def _sum_of_patterns(content: Elementwise, table: Table, prepare: Prepare) -> Array:
    """The sum of all elements, as an array of one."""
    counts = table.count(content.block_rows())
    used = counts > 0
    values = prepare(table.values[used], np.float64).astype(np.float64)
    return np.sum(values * counts[used], keepdims=True).reshape((1,) * len(content.shape))


def _sum(block: Array, axis: tuple[int, ...], wide: Any) -> Array:
    """Rows are added to each other first where they are: numpy does that faster than along them."""
    if axis[0] == 0:
        block = np.sum(block, axis=0, keepdims=True, dtype=wide)
    return np.asarray(np.sum(block, axis=axis, keepdims=True, dtype=wide))


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


_REDUCTIONS: dict[str, tuple[Prepare, Callable[[Array, int], Array]]] = {
    "ReduceMean": (_plain, _mean),
    "ReduceSum": (_plain, _total),
    "ReduceL1": (_absolute, _total),
    "ReduceL2": (_square, _root),
    "ReduceSumSquare": (_square, _total),
}
