"""The magnitudes of a matrix by rows and groups of columns: all that tells how many levels there are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bitcc.passes.magnitudes import comparable, ends_of, floats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bitcc.passes.extent import Extent
    from bitcc.passes.matrix import Matrix

GROUPS = (256, 128, 64, 32, 16)
"""How many columns can share a scale, if their number divides K."""

_UNIT = 64  # columns: blocks of a transposed matrix begin at multiples of them

_SOME = slice(0, 16)  # rows

EVIDENCE = 4
"""Nonzero weights for each scale: with fewer, any sparse matrix would have "one level"."""


class Levels(NamedTuple):
    """The nonzero magnitudes of each group of columns, arrays [N, groups].

    Attributes:
        largest: 0 where there is none.
        smallest: Infinity where there is none.
        total: Their sum, in float64.
        number: How many there are.
    """

    largest: NDArray[Any]
    smallest: NDArray[Any]
    total: NDArray[np.float64]
    number: NDArray[np.int64]

    def mean(self) -> NDArray[np.float64]:
        """One where there is none."""
        return np.where(self.number == 0, 1.0, self.total / np.maximum(self.number, 1))

    def has_more(self) -> bool:
        """Whether a magnitude lies between zero and half of the largest of its group."""
        return bool((self.smallest <= self.largest / 2).any())

    def evidence(self) -> int:
        """How many more weights there are than as many levels need as evidence."""
        return int(self.number.sum() - EVIDENCE * np.count_nonzero(self.number))

    def stray(self) -> float:
        """How far a magnitude is from the mean of its group, relative to that mean, at most."""
        mean = self.mean()
        away = np.maximum(self.largest - mean, mean - self.smallest) / mean
        return float(np.where(self.number == 0, 0, away).max())


def exact_scales(matrix: Matrix, extent: Extent, tolerance: float) -> NDArray[np.float32] | None:
    """The levels of the largest groups of columns that have one each, rows first, [N, groups of a row].

    Args:
        matrix: What has them.
        extent: Of its magnitudes, all finite.
        tolerance: How far a magnitude may be from the level of its group, relative to that.
    """
    some = comparable(matrix.rows(_SOME))  # which say mostly what groups have more
    for size in sizes(matrix):
        if not _are_equal(*ends_of(some.reshape(-1, size), axis=1), tolerance):
            continue
        scales = _scales(matrix, size, tolerance)
        if scales is not None:
            few = extent.number < EVIDENCE * np.count_nonzero(scales)  # and fewer for smaller groups
            return None if few else np.where(scales == 0, np.float32(1), scales)
    return None


def _scales(matrix: Matrix, size: int, tolerance: float) -> NDArray[np.float32] | None:
    """The levels of groups of ``size`` columns, 0 where all are zero; None if one of them has more."""
    shape = (matrix.shape[0], matrix.shape[1] // size)
    largest = np.zeros(shape, np.float64 if matrix.dtype == np.float64 else np.float32, order=matrix.order)
    smallest = np.full_like(largest, np.inf)
    for at, values, axis in _parts_of_groups(matrix, size):
        above, below = ends_of(values, axis)
        largest[at] = np.maximum(largest[at], above)
        smallest[at] = np.minimum(smallest[at], below)
        if not _are_equal(largest[at], smallest[at], tolerance):
            return None
    return np.where(largest == 0, 0, _middle(largest, smallest)).astype(np.float32)


def _parts_of_groups(matrix: Matrix, size: int) -> Iterator[tuple[Any, NDArray[Any], int]]:
    """(which [N, groups], values, axis of those of a group) of the whole matrix, as it lies in memory."""
    k = matrix.shape[1]
    for rows in matrix.blocks():
        values = comparable(matrix.content.rows(rows))
        if not matrix.transposed:
            yield rows, values.reshape(len(values), -1, size), 2
            continue
        step = len(values) if size == k else math.gcd(size, _UNIT)
        for first in range(0, len(values), step):
            yield (slice(None), (rows.start + first) // size), values[first : first + step], 0


def _are_equal(largest: NDArray[Any], smallest: NDArray[Any], tolerance: float) -> bool:
    """Whether the magnitudes of each group are, which lie between these: as close to their middle as that."""
    return bool((largest - smallest <= 2 * tolerance * _middle(largest, smallest)).all())


def _middle(largest: NDArray[Any], smallest: NDArray[Any]) -> NDArray[Any]:
    return largest / 2 + smallest / 2  # their sum may be infinite


def stray_of_finest(matrix: Matrix) -> float | None:
    """That of the smallest groups; None if one of them has more levels, or there are too few weights."""
    stray, evidence = 0.0, 0
    for rows in matrix.row_blocks():
        groups = levels_of(floats(matrix.rows(rows)), finest(matrix))
        if groups.has_more():
            return None
        stray = max(stray, groups.stray())
        evidence += groups.evidence()
    return stray if evidence >= 0 else None


def levels_of(values: NDArray[Any], size: int) -> Levels:
    """Of groups of ``size`` columns of some rows."""
    magnitude = np.abs(values).reshape(values.shape[0], -1, size)
    nonzero = magnitude != 0
    return Levels(
        magnitude.max(axis=2),
        np.where(nonzero, magnitude, np.inf).min(axis=2),
        magnitude.sum(axis=2, dtype=np.float64),
        nonzero.sum(axis=2),
    )


def sizes(matrix: Matrix) -> tuple[int, ...]:
    """Of the groups that the columns can have: all, those of one part, and fewer and fewer."""
    k = matrix.shape[1]
    part = k // matrix.parts
    return tuple(dict.fromkeys((k, part, *(size for size in GROUPS if size < part and part % size == 0))))


def finest(matrix: Matrix) -> int:
    """The size of the smallest groups that the columns can have."""
    return sizes(matrix)[-1]
