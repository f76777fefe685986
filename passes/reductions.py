"""Reductions of constants, in float64 and block by block: nothing as large as the weights is made.

The sum of what is a function of 8 or 16 bits is that of each pattern of bits, times how often it occurs; that
of the magnitudes of halves, which quantizers ask for, has a way of its own that is three times faster.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

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
    of_all = len(axis) == rank and wide is np.float64
    if of_all and (sum_of_halves := _sum_of_magnitudes(content, prepare)) is not None:
        total = np.full((1,) * rank, sum_of_halves)
    elif of_all and (is_half or content.is_looked_up) and content.table:
        total = _sum_of_patterns(content, content.table, prepare)
    else:
        parts = (_sum(prepare(content.rows(rows), wide), axis, wide) for rows in content.block_rows())
        total = functools.reduce(np.add, parts) if 0 in axis else np.concatenate(list(parts))
    result = np.asarray(finish(total, math.prod(array.shape[a] for a in axis))).astype(array.dtype)
    return result if node.attributes.get_int("keepdims", 1) != 0 else np.squeeze(result, axis)


class _Half(NamedTuple):
    """How a type of 16 bits becomes float32.

    Attributes:
        shift: Bits from the places of exponent and mantissa to those in float32.
        unit: What that divides by, for the exponents may be biased by different amounts.
        infinity: The pattern of bits; those of larger numbers stand for none.
    """

    shift: int
    unit: float
    infinity: int

    def magnitudes(self, patterns: NDArray[np.uint16]) -> NDArray[np.float32]:
        """In units, of patterns without signs: as ``widened``, but nothing is looked at first."""
        return (patterns.astype(np.uint32) << np.uint32(self.shift)).view(np.float32)

    def sums(self, patterns: NDArray[np.uint16]) -> NDArray[np.float32]:
        """In units, of ``_TOGETHER`` magnitudes each, where ``patterns`` is a multiple of them.

        Two patterns are a word; each of them is moved to its place in that, with nothing of the other.
        """
        words = patterns.view(np.uint32)
        bits = words << np.uint32(self.shift)
        mask = np.uint32((_SIGN - 1) << self.shift)
        magnitudes = bits.view(np.float32).reshape(_TOGETHER // 2, -1)
        bits &= mask
        sums = magnitudes.sum(axis=0)
        np.right_shift(words, np.uint32(16 - self.shift), out=bits)
        bits &= mask
        sums += magnitudes.sum(axis=0)
        return np.asarray(sums)


_HALVES = (_Half(13, 2.0**112, 0x7C00), _Half(16, 1.0, 0x7F80))
_SIGN = 1 << 15
_TOGETHER = 16  # halves of 11 bits, whose sum float32 holds, but for the last bits of much smaller ones


def _sum_of_magnitudes(content: Elementwise, prepare: Prepare) -> float | None:
    """The sum of all elements, if they are the magnitudes of finite halves."""
    if math.prod(content.shape) <= 2 * _SIGN or (table := content.table) is None:
        return None
    half = next((h for h in _HALVES if _are_magnitudes(table, prepare, h)), None)
    if half is None:
        return None
    infinity = half.magnitudes(np.array(half.infinity, np.uint16))
    total = 0.0
    for rows in content.block_rows():
        patterns = table.patterns[rows].reshape(-1).view(np.uint16)
        together = patterns.size // _TOGETHER * _TOGETHER
        parts = [half.sums(patterns[:together])] if together else []
        if together < patterns.size:
            parts.append(half.magnitudes(patterns[together:] & np.uint16(_SIGN - 1)))
        for some in parts:
            if not some.max() < infinity:  # written so that NaN is no sum either
                return None
            total += float(some.sum(dtype=np.float64))
    return total * half.unit


def _are_magnitudes(table: Table, prepare: Prepare, half: _Half) -> bool:
    """Whether the values are those of the patterns, without their signs."""
    if table.values.size != 2 * _SIGN:
        return False
    values = prepare(table.values, np.float64).reshape(2, _SIGN)[:, : half.infinity]
    wanted = half.magnitudes(np.arange(half.infinity, dtype=np.uint16)) * np.float64(half.unit)
    return bool((values == wanted).all())


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
