"""The extent of the magnitudes of a whole matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bitcc.passes.magnitudes import comparable, ends_of, signs_of

if TYPE_CHECKING:
    from bitcc.formats import PackedMatrix
    from bitcc.passes.matrix import Matrix


class Extent(NamedTuple):
    """Of the nonzero magnitudes of a matrix.

    Attributes:
        largest: 0 where there is none.
        smallest: Infinity where there is none.
        number: How many there are.
    """

    largest: float
    smallest: float
    number: int

    def has_more(self) -> bool:
        """Whether a magnitude lies between zero and half of the largest."""
        return self.smallest <= self.largest / 2

    def is_one_level(self, tolerance: float) -> bool:
        """Whether there are weights, and all are as close to one level as that."""
        return self.number > 0 and bool(np.isfinite(self.largest)) and self.stray() <= tolerance

    def stray(self) -> float:
        """How far the outermost magnitudes are from the middle between them, relative to that."""
        return (self.largest - self.smallest) / (self.largest + self.smallest)


def extent_of(matrix: Matrix, codes: PackedMatrix) -> Extent:
    """That of all columns of all rows; the signs of all values go to ``codes``."""
    largest, smallest, number = 0.0, np.inf, 0
    for rows in matrix.blocks(codes.fmt):
        values = comparable(matrix.content.rows(rows))
        signs = signs_of(values)
        codes.write(*matrix.place(rows), matrix.as_content(signs))
        number += int(np.count_nonzero(signs))
        most, least = map(float, ends_of(values))
        largest = float(np.maximum(largest, most))  # max() would drop NaN
        smallest = min(smallest, least)
    return Extent(largest, smallest, number)
