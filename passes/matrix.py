"""A constant matrix in blocks, whichever way it lies in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bitcc.formats import FORMATS
from bitcc.passes.elementwise import BLOCK, Elementwise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bitcc.formats import Order, WeightFormat

    Array = NDArray[Any]

PACKED = 1 << 18
"""Elements that are packed, or compared with packed ones, together: that takes many calls for each block."""

_COLUMNS = 64  # or some fewer, of a transposed matrix: tiles of all rows are small


class Matrix(NamedTuple):
    """A constant matrix as a product reads it, [N, K].

    Attributes:
        content: Its elements, [N, K] or [K, N].
        transposed: Whether they are [K, N].
        parts: How many matrices of as many columns lie side by side in it.
    """

    content: Elementwise
    transposed: bool = False
    parts: int = 1

    @classmethod
    def of(cls, array: Array) -> Matrix:
        """An array [N, K] as it is."""
        return cls(Elementwise.of(array))

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        n, k = self.content.shape
        return (k, n) if self.transposed else (n, k)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements."""
        return self.content.dtype

    def blocks(self, fmt: WeightFormat = FORMATS["t2"], *, most: int = BLOCK) -> Iterator[slice]:
        """Which rows of the content to read together; whole tiles of weights in that format."""
        columns = max(1, _COLUMNS // fmt.columns) * fmt.columns
        return self.content.block_rows(columns if self.transposed else fmt.rows, most=most)

    def tiles(self, fmt: WeightFormat = FORMATS["t2"]) -> Iterator[tuple[slice, slice]]:
        """(rows, columns) of the blocks."""
        return map(self.place, self.blocks(fmt))

    def place(self, rows: slice) -> tuple[slice, slice]:
        """(rows, columns) of some rows of the content."""
        every = slice(None)
        return (every, rows) if self.transposed else (rows, every)

    def tile(self, rows: slice, columns: slice) -> Array:
        """The elements of one of ``tiles``, contiguous."""
        if self.transposed:
            return np.ascontiguousarray(self.content.rows(columns).T)
        return self.content.rows(rows)

    def row_blocks(self) -> Iterator[slice]:
        """Which whole rows to read together, also of a transposed matrix."""
        n, k = self.shape
        count = max(1, BLOCK // k)
        return (slice(start, min(start + count, n)) for start in range(0, n, count))

    def rows(self, rows: slice) -> Array:
        """The elements of some rows, contiguous."""
        if self.transposed:
            return np.ascontiguousarray(self.content.columns(rows).T)
        return self.content.rows(rows)

    def sample(self, rows: NDArray[np.int64], columns: int) -> Array:
        """Some rows, and of those the first columns."""
        if self.transposed:
            return self.content.rows(slice(0, columns))[:, rows].T
        return self.content.rows(rows)[:, :columns]

    @property
    def order(self) -> Order:
        """How the content lies in memory, as a matrix [N, K]."""
        return "F" if self.transposed else "C"

    def as_content(self, array: Array) -> Array:
        """A view of an array [N, K], like the content."""
        return array.T if self.transposed else array
