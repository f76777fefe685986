"""A ternary matrix that is written and read part by part: it is never in memory unpacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bitcc.formats._base import check_packed

if TYPE_CHECKING:
    from bitcc.formats._base import Bytes, Int8, Order, WeightFormat

_ALL = slice(None)
_AT_ONCE = 1 << 18  # weights
_Part: TypeAlias = tuple[range, range]


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """Packed ternary weights [N, K].

    Attributes:
        fmt: How they are packed.
        shape: (N, K).
        data: uint8, of the shape that ``fmt`` packs them to.

    Raises:
        PackedWeightError: ``data`` has another type or shape.
    """

    fmt: WeightFormat
    shape: tuple[int, int]
    data: Bytes

    def __post_init__(self) -> None:
        check_packed(self.data, self.fmt.packed_shape(*self.shape), *self.shape)

    @classmethod
    def empty(cls, fmt: WeightFormat, shape: tuple[int, int]) -> PackedMatrix:
        """A matrix to be written."""
        return cls(fmt, shape, np.empty(fmt.packed_shape(*shape), np.uint8))

    def write(self, rows: slice, columns: slice, weights: Int8) -> None:
        """Set a part that begins and ends where tiles of the format do, or where the matrix does.

        Raises:
            PackedWeightError: a weight is not in {-1, 0, 1}.
            ValueError: the part begins or ends elsewhere, or ``weights`` has another shape.
        """
        self._part(rows, columns, weights)[...] = self.fmt.pack(weights)

    def holds(self, rows: slice, columns: slice, weights: Int8) -> bool:
        """Whether ``read`` gives these weights for a part as of ``write``; False also where it refuses.

        Raises:
            PackedWeightError: a weight is not in {-1, 0, 1}.
            ValueError: the part begins or ends elsewhere, or ``weights`` has another shape.
        """
        return self.fmt.holds(self._part(rows, columns, weights), weights)

    def read(self, rows: slice = _ALL, columns: slice = _ALL, order: Order = "C") -> Int8:
        """Any part, int8, in memory of that order but for what is cut off its tiles.

        Raises:
            PackedWeightError: a byte of its tiles is none that a packer writes, or their padding is not zero.
        """
        part, tiles = self._places(rows, columns)
        weights = self.fmt.unpack(self._packed(tiles), *_shape(tiles), order)
        inside = (slice(p.start - t.start, p.stop - t.start) for p, t in zip(part, tiles, strict=True))
        return weights[tuple(inside)]

    def packed_as(self, fmt: WeightFormat) -> PackedMatrix:
        """The same weights in another format, or this matrix if it is the same.

        Raises:
            PackedWeightError: a byte is none that a packer writes, or padding is not zero.
        """
        if fmt == self.fmt:
            return self
        n, k = self.shape
        packed = PackedMatrix.empty(fmt, self.shape)
        unit = fmt.rows
        count = max(1, _AT_ONCE // (unit * k)) * unit
        for start in range(0, n, count):
            rows = slice(start, start + count)
            packed.write(rows, _ALL, self.read(rows))
        return packed

    def _part(self, rows: slice, columns: slice, weights: Int8) -> Bytes:
        """A view of the bytes of a part of whole tiles, for weights of its shape."""
        part, tiles = self._places(rows, columns)
        if part != tiles or weights.shape != _shape(part):
            raise ValueError(f"weights {list(weights.shape)} do not fill tiles of [{part[0]}, {part[1]}]")
        return self._packed(tiles)

    def _places(self, rows: slice, columns: slice) -> tuple[_Part, _Part]:
        """The rows and columns of a part, and those of the tiles that it is in."""
        n, k = self.shape
        part = range(n)[rows], range(k)[columns]
        return part, (_whole(part[0], self.fmt.rows, n), _whole(part[1], self.fmt.columns, k))

    def _packed(self, tiles: _Part) -> Bytes:
        """A view of their bytes, which are a packed matrix of their own."""
        rows, columns = tiles
        vectors = self.fmt.packed_shape(1, self.fmt.columns)[1]
        return self.data[
            rows.start // self.fmt.rows : -(-rows.stop // self.fmt.rows),
            columns.start // self.fmt.columns * vectors : -(-columns.stop // self.fmt.columns) * vectors,
        ]


def _shape(part: _Part) -> tuple[int, int]:
    return len(part[0]), len(part[1])


def _whole(part: range, unit: int, size: int) -> range:
    """The part, from and to multiples of the unit."""
    return range(part.start // unit * unit, min(-(-part.stop // unit) * unit, size))
