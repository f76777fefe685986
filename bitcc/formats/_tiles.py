"""Formats whose bytes hold some weights each, in tiles of 16 rows by vectors of 64 bytes.

Codes are c = w + 1. Byte 4*n + kk of vector ``v`` holds the codes of row 16*tile + n and of the columns
4*(count*v + i) + kk, i = 0 .. count - 1: so the four bytes kk of a row are a word that never comes apart, and
a format says how words of codes, one for each i, become one word of bytes, and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitcc.errors import PackedWeightError
from bitcc.formats._base import check_packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bitcc.formats._base import Bytes, Int8, Order

Words: TypeAlias = NDArray[np.uint32]

ROWS = 16
"""Of a tile."""

_WORD = np.dtype("<u4")  # of the bytes kk = 0 .. 3
_NOT_TERNARY = "only int8 weights in {-1, 0, 1} can be packed"
_PADDING = "the padding of the packed weights is not zero"
_AT_ONCE = 1 << 18  # weights, in rows of tiles: they and their temporaries stay in a core's cache
_VECTORS = 4  # at a time, of transposed weights


@dataclass(frozen=True)
class Tiling:
    """How a format fills its bytes.

    Attributes:
        count: Codes in a byte.
        alignment: Vectors; K is padded to a multiple of their columns.
        join: ``count`` words of codes -> words of bytes.
        split: The inverse, one word after the other. Raises ``PackedWeightError`` for a byte that ``join``
            does not make.
        powers: One for each code of a byte: the sum of the codes times these is the number of the byte.
        number: Words of bytes -> words of their numbers; of bytes that ``join`` does not make, those that no
            ternary codes have.
    """

    count: int
    alignment: int
    join: Callable[[Sequence[Words]], Words]
    split: Callable[[Words], Iterable[Words]]
    powers: tuple[int, ...]
    number: Callable[[Words], Words]

    @property
    def columns(self) -> int:
        """Of a vector."""
        return 4 * self.count

    def packed_shape(self, n: int, k: int) -> tuple[int, int, int]:
        """The shape [tiles, vectors, 64] of the packed form of an (n, k) matrix, n and k at least 1."""
        return -(-n // ROWS), -(-k // (self.columns * self.alignment)) * self.alignment, 4 * ROWS

    def pack(self, weights: Int8) -> Bytes:
        """(n, k) int8 in {-1, 0, 1} -> uint8 [tiles, vectors, 64].

        Raises:
            PackedWeightError: the matrix is empty, not two-dimensional or not ternary.
        """
        if weights.ndim != 2 or 0 in weights.shape:
            raise PackedWeightError(f"a weight matrix of shape {list(weights.shape)} cannot be packed")
        if weights.dtype != np.int8:
            raise PackedWeightError(_NOT_TERNARY)
        packed = np.empty(self.packed_shape(*weights.shape), np.uint8)
        (self._pack_columns if _is_transposed(weights) else self._pack_rows)(weights, packed)
        return packed

    def unpack(self, packed: Bytes, n: int, k: int, order: Order = "C") -> Int8:
        """uint8 [tiles, vectors, 64] -> (n, k) int8, the inverse of ``pack``.

        Raises:
            PackedWeightError: there is no weight, the shape is not that of an (n, k) matrix, a byte is none
                that ``pack`` writes, or the padding holds something else than weight 0.
        """
        if n < 1 or k < 1:
            raise PackedWeightError(f"N = {n}, K = {k}: there is no weight")
        check_packed(packed, self.packed_shape(n, k), n, k)
        weights = np.empty((n, k), np.int8, order=order)
        (self._unpack_columns if order == "F" else self._unpack_rows)(packed, weights)
        return weights

    def holds(self, packed: Bytes, weights: Int8) -> bool:
        """Whether ``unpack`` gives these weights; False also where it refuses the bytes.

        The numbers of the bytes are compared with those of the weights' codes. Neither ``join`` nor the order
        in which ``pack`` writes is used, so that this proves both.

        Raises:
            PackedWeightError: the shape is not that of such a matrix, or the weights are not ternary.
        """
        check_packed(packed, self.packed_shape(*weights.shape), *weights.shape)
        return (self._hold_columns if _is_transposed(weights) else self._hold_rows)(packed, weights)

    def _pack_rows(self, weights: Int8, packed: Bytes) -> None:
        tiles, vectors, _ = packed.shape
        at_once = self._tiles_at_once(packed)
        codes = np.empty((at_once * ROWS, vectors * self.columns), np.uint8)
        for tile in range(0, tiles, at_once):
            part = packed[tile : tile + at_once]
            some = codes[: len(part) * ROWS]
            _encode(weights[tile * ROWS : (tile + at_once) * ROWS], some)
            words = some.view(_WORD).reshape(-1, ROWS, vectors, self.count)
            joined = self.join([words[..., i].copy() for i in range(self.count)])  # tile, n, vector
            part.view(_WORD)[...] = joined.transpose(0, 2, 1)

    def _pack_columns(self, weights: Int8, packed: Bytes) -> None:
        """The same from the memory of (k, n) weights: no code leaves its column before it is in a byte."""
        tiles, vectors, _ = packed.shape
        rows = tiles * ROWS
        codes = np.empty((_VECTORS, self.count, 4, rows), np.uint8)  # vector, i, kk, n
        words = np.empty((_VECTORS, tiles, ROWS, 4), np.uint8)  # vector, tile, n, kk
        for vector in range(0, vectors, _VECTORS):
            part = packed.view(_WORD)[:, vector : vector + _VECTORS]
            some = codes[: part.shape[1]]
            columns = slice(vector * self.columns, (vector + _VECTORS) * self.columns)
            _encode(weights.T[columns], some.reshape(-1, rows))
            joined = self.join([some.view(_WORD)[:, i] for i in range(self.count)]).view(np.uint8)
            for kk in range(4):
                words[: len(some), ..., kk] = joined[:, kk].reshape(-1, tiles, ROWS)
            part[...] = words.view(_WORD)[: len(some), ..., 0].transpose(1, 0, 2)

    def _unpack_rows(self, packed: Bytes, weights: Int8) -> None:
        tiles, vectors, _ = packed.shape
        at_once = self._tiles_at_once(packed)
        codes = np.empty((at_once * ROWS, vectors * self.columns), np.uint8)
        for tile in range(0, tiles, at_once):
            part = packed[tile : tile + at_once]
            some = codes[: len(part) * ROWS]
            words = some.view(_WORD).reshape(-1, ROWS, vectors, self.count)
            joined = np.ascontiguousarray(part.view(_WORD).transpose(0, 2, 1))  # tile, n, vector
            for i, word in enumerate(self.split(joined)):
                words[..., i] = word
            _decode(some, weights[tile * ROWS : (tile + at_once) * ROWS])

    def _unpack_columns(self, packed: Bytes, weights: Int8) -> None:
        """The same into the memory of (k, n) weights."""
        tiles, vectors, _ = packed.shape
        rows = tiles * ROWS
        joined = np.empty((_VECTORS, 4, rows), np.uint8)  # vector, kk, n
        codes = np.empty((_VECTORS, self.count, 4, rows), np.uint8)  # vector, i, kk, n
        for vector in range(0, vectors, _VECTORS):
            part = packed.view(_WORD)[:, vector : vector + _VECTORS]
            some = codes[: part.shape[1]]
            words = np.ascontiguousarray(part.transpose(1, 0, 2)).view(np.uint8).reshape(-1, rows, 4)
            for kk in range(4):
                joined[: len(some), kk] = words[..., kk]
            for i, word in enumerate(self.split(joined[: len(some)].view(_WORD))):
                some.view(_WORD)[:, i] = word
            columns = slice(vector * self.columns, (vector + _VECTORS) * self.columns)
            _decode(some.reshape(-1, rows), weights.T[columns])

    def _hold_rows(self, packed: Bytes, weights: Int8) -> bool:
        tiles, vectors, _ = packed.shape
        at_once = self._tiles_at_once(packed)
        codes = np.empty((at_once * ROWS, vectors * self.columns), np.uint8)
        for tile in range(0, tiles, at_once):
            held = self.number(packed.view(_WORD)[tile : tile + at_once])  # tile, vector, n
            some = codes[: len(held) * ROWS]
            _encode(weights[tile * ROWS : (tile + at_once) * ROWS], some)
            words = some.view(_WORD).reshape(-1, ROWS, vectors, self.count)
            wanted = self._sum([words[..., i].copy() for i in range(self.count)])  # tile, n, vector
            if not np.array_equal(held.transpose(0, 2, 1), wanted):
                return False
        return True

    def _hold_columns(self, packed: Bytes, weights: Int8) -> bool:
        """The same of the memory of (k, n) weights."""
        tiles, vectors, _ = packed.shape
        rows = tiles * ROWS
        codes = np.empty((_VECTORS, self.count, 4, rows), np.uint8)  # vector, i, kk, n
        for vector in range(0, vectors, _VECTORS):
            part = np.ascontiguousarray(packed.view(_WORD)[:, vector : vector + _VECTORS].transpose(1, 0, 2))
            held = self.number(part).view(np.uint8).reshape(-1, rows, 4)  # vector, n, kk
            some = codes[: len(held)]
            columns = slice(vector * self.columns, (vector + _VECTORS) * self.columns)
            _encode(weights.T[columns], some.reshape(-1, rows))
            wanted = self._sum([some.view(_WORD)[:, i] for i in range(self.count)]).view(np.uint8)
            if not np.array_equal(held.transpose(0, 2, 1), wanted):
                return False
        return True

    def _sum(self, codes: Sequence[Words]) -> Words:
        """The numbers of bytes of these codes: none of them carries into the next."""
        total = codes[0] * np.uint32(self.powers[0])
        for code, power in zip(codes[1:], self.powers[1:], strict=True):
            total += code * np.uint32(power)
        return total

    def _tiles_at_once(self, packed: Bytes) -> int:
        tiles, vectors = map(int, packed.shape[:2])
        return min(tiles, max(1, _AT_ONCE // (ROWS * self.columns * vectors)))


def _is_transposed(weights: Int8) -> bool:
    return weights.flags.f_contiguous and not weights.flags.c_contiguous


def _encode(weights: Int8, codes: Bytes) -> None:
    """Fill the first rows and columns with the codes of weights; what is behind becomes padding."""
    rows, columns = weights.shape
    np.add(weights, 1, out=codes[:rows, :columns].view(np.int8))
    codes[:rows, columns:] = codes[rows:] = 1
    if codes.max() > 2:
        raise PackedWeightError(_NOT_TERNARY)


def _decode(codes: Bytes, weights: Int8) -> None:
    """Fill the weights with the codes, which have rows and columns more: the padding."""
    rows, columns = weights.shape
    for padding in (codes[rows:], codes[:rows, columns:]):
        if padding.size and (padding != 1).any():
            raise PackedWeightError(_PADDING)
    np.subtract(codes[:rows, :columns].view(np.int8), 1, out=weights)
