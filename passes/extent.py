"""The extent of the magnitudes of a whole matrix, and the signs of its values.

Floats are compared as the bits that they are: without their signs these are ordered like the magnitudes, with
NaN as the largest. So half precision, which numpy computes with slowly, is not converted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bitcc.passes.levels import floats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.formats import PackedMatrix
    from bitcc.passes.elementwise import Matrix

    Array = NDArray[Any]

HALVES = frozenset({"float16", "bfloat16"})


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
    for rows in matrix.blocks():
        values = matrix.content.rows(rows)
        values = values if values.dtype.name in HALVES else floats(values)
        signs = _signs(values)
        codes.write(*matrix.place(rows), matrix.as_content(signs))
        number += int(np.count_nonzero(signs))
        most, least = _ends(values)
        largest = float(np.maximum(largest, most))  # max() would drop NaN
        smallest = min(smallest, least or np.inf)
    return Extent(largest, smallest, number)


def magnitudes_of(values: Array) -> Array:
    """The bits of floats without their signs, unsigned integers."""
    kind = np.dtype(f"u{values.itemsize}").type
    return values.view(kind) & kind(_sign(values) - 1)


def _sign(values: Array) -> int:
    return 1 << 8 * values.itemsize - 1


def _signs(values: Array) -> Array:
    """-1, 0 and 1, int8."""
    positive = values.view(f"i{values.itemsize}") > 0
    negative = values.view(f"u{values.itemsize}") > _sign(values)
    return positive.view(np.int8) - negative.view(np.int8)


def _ends(values: Array) -> tuple[float, float]:
    """The largest and the smallest nonzero magnitude, 0 where there is none."""
    magnitudes = magnitudes_of(values)
    most = magnitudes.max(keepdims=True)
    magnitudes -= 1  # zero wraps around to the largest, and back
    least = magnitudes.min(keepdims=True) + magnitudes.dtype.type(1)
    return float(most.view(values.dtype).item()), float(least.view(values.dtype).item())
