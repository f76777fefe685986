"""Find the levels of weights that went through a straight-through estimator, mostly in half precision.

``w + (q * s - w)`` is a multiple of the spacing of values around w: coarse where w is many times s. Most
weights are at their level, or beside it where it lies between two values; a few are far away; and zero codes
are exactly zero. In float32 all are close, and rows are all that needs this: ``ternary`` knows of one level.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx_ir as ir

from bitcc.passes.levels import levels_of
from bitcc.passes.magnitudes import floats, magnitudes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bitcc.passes.extent import Extent
    from bitcc.passes.matrix import Matrix

SPACING = {"float16": 2**-10, "bfloat16": 2**-7}
"""Of the values of a type, relative to them: behind a power of two, where it is widest."""

_LEAST_AT_LEVEL = 0.75  # of the weights; without such a majority there is more than one level
_NOISE = 3e-2
_MOST_BEYOND = 0.01  # of the weights
_FARTHEST = 0.4
FINE = 1e-4
"""The farthest in float32; scales of rows or groups are no closer to each other."""
_HALVES = 1 << 15  # without their signs
_IN_FLOAT32 = {
    ir.DataType.FLOAT: 2**-23,
    ir.DataType.FLOAT16: SPACING["float16"],
    ir.DataType.BFLOAT16: SPACING["bfloat16"],
}
_MOST_NOISE = 2.0  # spacings in the mean of all weights


class _Spread(NamedTuple):
    """How many magnitudes there are, at their level and beyond the noise, and how far the farthest one is."""

    number: int
    at_level: int
    beyond: int
    farthest: float

    @classmethod
    def of(cls, away: NDArray[Any], counts: NDArray[np.int64], spacing: float) -> _Spread:
        """Of distances from the level, relative to it, and how often each occurs."""
        at_level, beyond = (int(counts[some].sum()) for some in (away <= spacing, away > _NOISE))
        return cls(int(counts.sum()), at_level, beyond, float(away.max(initial=0)))

    def and_of(self, other: _Spread) -> _Spread:
        """Of the magnitudes of both."""
        number, at_level, beyond = (a + b for a, b in zip(self[:3], other[:3], strict=True))
        return _Spread(number, at_level, beyond, max(self.farthest, other.farthest))

    def is_noise(self) -> bool:
        """Whether it is that of a straight-through estimator around one level."""
        are_at_level = self.at_level >= _LEAST_AT_LEVEL * self.number
        return are_at_level and self.beyond <= _MOST_BEYOND * self.number and self.farthest <= _FARTHEST


def is_rounding(counts: Mapping[float, int], level: float, number: int) -> bool:
    """Whether magnitudes around a level, stored in float32, are the noise of a type in which they all are.

    ``w + (q * s - w)`` is rounded twice, each time by half the spacing around w at most. With s the mean of
    all |w|, that is one spacing around s in the mean; twice that leaves room for other scales. A second
    level is further away, or no value of the type, or one of many.

    Args:
        counts: How often each magnitude but zero occurs.
        level: Of them.
        number: How many weights there are, zeros included.
    """
    values, times = np.array(list(counts)), np.array(list(counts.values()))
    far = _away(values, np.float32(level))
    if times[far > _NOISE].sum() > _MOST_BEYOND * times.sum():
        return False
    away = float((far * times).sum()) / number
    types = [t for t, spacing in _IN_FLOAT32.items() if away <= _MOST_NOISE * spacing]
    with np.errstate(all="ignore"):  # what float16 does not hold is infinite
        return any(np.array_equal(values.astype(t.numpy()).astype(values.dtype), values) for t in types)


def scale_of_all(matrix: Matrix, extent: Extent) -> NDArray[np.float32] | None:
    """The level of all weights, the median of their magnitudes, [1, 1]; None if they have more levels.

    Args:
        matrix: In half precision, with no magnitude between zero and half of the largest one.
        extent: Of the magnitudes, all finite.
    """
    values = floats(np.arange(_HALVES, dtype=np.uint16).view(matrix.dtype))
    fewer = (extent.number - 1) // 2  # than those that are no smaller than the median

    def numbers_around(level: int) -> list[int]:
        at_level = _near(values, level, SPACING[matrix.dtype.name])
        return _numbers_from(matrix, [level, level + 1, *at_level, *_near(values, level, _NOISE)])

    median = _sample_median(matrix)  # mostly that of all
    numbers = numbers_around(median)
    if not numbers[1] <= fewer < numbers[0]:
        median = bisect_left(range(_HALVES), -fewer, key=lambda p: -_numbers_from(matrix, [p])[0]) - 1
        numbers = numbers_around(median)
    at_level, inside = numbers[2] - numbers[3], numbers[4] - numbers[5]
    ends = np.array([extent.smallest, extent.largest], np.float32)
    farthest = float(_away(ends, values[median]).max())
    spread = _Spread(extent.number, at_level, extent.number - inside, farthest)
    return np.full((1, 1), values[median], np.float32) if spread.is_noise() else None


def _sample_median(matrix: Matrix) -> int:
    """Of the first nonzero magnitudes; magnitudes are ordered like their patterns of bits."""
    for at in matrix.blocks():
        magnitudes = magnitudes_of(matrix.content.rows(at))
        nonzero = magnitudes[magnitudes > 0]
        if nonzero.size:
            return int(np.partition(nonzero, nonzero.size // 2)[nonzero.size // 2])
    raise AssertionError  # the caller knows of a nonzero value


def _away(values: NDArray[np.float32], level: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """How far they are from the level, relative to it."""
    with np.errstate(all="ignore"):  # of all patterns some are infinite or NaN
        return np.asarray(np.abs(values / level - 1))


def _near(values: NDArray[np.float32], level: int, most: float) -> tuple[int, int]:
    """(first, last + 1) of the patterns no further from a level than that, given what each is."""
    near = np.flatnonzero(_away(values, values[level]) <= most)
    return int(near[0]), int(near[-1]) + 1


def _numbers_from(matrix: Matrix, patterns: list[int]) -> list[int]:
    """For each pattern, how many magnitudes are no smaller."""
    numbers = np.zeros(len(patterns), np.int64)
    for rows in matrix.content.block_rows():
        magnitudes = magnitudes_of(matrix.content.rows(rows))
        numbers += [np.count_nonzero(magnitudes >= pattern) for pattern in patterns]
    return numbers.tolist()


def scales(matrix: Matrix, size: int) -> NDArray[np.float32] | None:
    """The levels of groups of ``size`` columns, [N, K / size]; None if one of them has more than one.

    Args:
        matrix: In half precision, or in another type with less noise.
        size: K or a part of it.
    """
    found = []
    spacing = SPACING.get(matrix.dtype.name, 0.0)
    farthest = _FARTHEST if spacing else FINE
    spread, evidence, noise = _Spread(0, 0, 0, 0.0), 0, 0.0
    for rows in matrix.row_blocks():
        values = floats(matrix.rows(rows))
        known = levels_of(values, size)
        if known.has_more():
            return None
        evidence += known.evidence()
        groups = np.abs(values).reshape(-1, size)
        level = _medians(groups, known.number.reshape(-1, 1))
        found.append(level.reshape(values.shape[0], -1))
        away = _away(groups, level)[groups > 0]
        spread = spread.and_of(_Spread.of(away, np.ones(away.shape, np.int64), spacing))
        if not spread.farthest <= farthest:
            return None
        noise += float(away.sum())
    if not spacing and noise > _MOST_NOISE * _IN_FLOAT32[ir.DataType.FLOAT] * math.prod(matrix.shape):
        return None
    return np.concatenate(found) if spread.is_noise() and evidence >= 0 else None


def _medians(groups: NDArray[np.float32], number: NDArray[Any]) -> NDArray[np.float32]:
    """Of the nonzero magnitudes of each group, ``number`` of them; one where there is none."""
    last = groups.shape[1] - 1
    ordered = np.sort(groups, axis=1)  # the nonzero ones are behind the others
    middle = np.minimum(last - (number - 1) // 2, last)
    return np.where(number == 0, np.float32(1), np.take_along_axis(ordered, middle, axis=1))
