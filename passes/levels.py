"""The magnitudes of a matrix by rows and groups of columns: all that tells how many levels there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bitcc.passes.elementwise import widened

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.passes.elementwise import Matrix

GROUPS = (256, 128, 64, 32, 16)
"""How many columns can share a scale, if their number divides K."""

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

    def is_exact(self, tolerance: float) -> bool:
        """Whether each group has one level, up to a tolerance."""
        return not self.has_more() and self.stray() <= tolerance

    def stray(self) -> float:
        """How far a magnitude is from the mean of its group, relative to that mean, at most."""
        mean = self.mean()
        away = np.maximum(self.largest - mean, mean - self.smallest) / mean
        return float(np.where(self.number == 0, 0, away).max())


def exact_scales(matrix: Matrix, tolerance: float) -> NDArray[np.float32] | None:
    """The levels of the largest groups of columns that have one each, rows first, [N, groups of a row]."""
    row = floats(matrix.rows(slice(0, 1)))  # says mostly which groups have more
    likely = (size for size in sizes(matrix.shape[1]) if levels_of(row, size).is_exact(tolerance))
    return next((scales for size in likely if (scales := _scales(matrix, size, tolerance)) is not None), None)


def _scales(matrix: Matrix, size: int, tolerance: float) -> NDArray[np.float32] | None:
    """The levels of groups of ``size`` columns; None if one of them has more, or there are too few weights."""
    means, evidence = [], 0
    for rows in matrix.row_blocks():
        groups = levels_of(floats(matrix.rows(rows)), size)
        if not groups.is_exact(tolerance):
            return None
        means.append(groups.mean().astype(np.float32))
        evidence += groups.evidence()
    return np.concatenate(means) if evidence >= 0 else None


def stray_of_finest(matrix: Matrix) -> float | None:
    """That of the smallest groups; None if one of them has more levels, or there are too few weights."""
    stray, evidence = 0.0, 0
    for rows in matrix.row_blocks():
        groups = levels_of(floats(matrix.rows(rows)), finest(matrix.shape[1]))
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


def sizes(k: int) -> tuple[int, ...]:
    """Of the groups that K columns can have: all, and fewer and fewer."""
    return (k, *(size for size in GROUPS if size < k and k % size == 0))


def finest(k: int) -> int:
    """The size of the smallest groups that K columns can have."""
    return sizes(k)[-1]


def floats(block: NDArray[Any]) -> NDArray[Any]:
    """float64 as it is, everything else as float32, which holds it."""
    if block.dtype == np.float16:
        return widened(block)
    return block if block.dtype == np.float64 else block.astype(np.float32, copy=False)
