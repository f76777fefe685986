"""``t2``: two bits a weight, in the order in which vector units want them.

Codes are c = w + 1. N is padded to tiles of 16 rows, K to blocks of 64 columns, both with weight 0.
The packed array is uint8 [N/16, K/16, 64]: byte 4*n + kk of a 64-byte vector holds, in bits
2i..2i+1, the code of row 16*tile + n, column 16*vector + 4*i + kk. docs/formats.md says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitcc.errors import PackedWeightError
from bitcc.formats._base import Bytes, Int8, Order, WeightFormat, check_packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS = 16
_COLUMNS = 16  # of one 64-byte vector
_K_ALIGNMENT = 64
_WORD = np.dtype("<u4")  # the four bytes kk of one row: bytes never change places within
_PAIR = np.dtype("<u8")  # those of two i
_CRUMB_OF_EACH_BYTE = np.uint64(0x0303030303030303)
_BIT_OF_EACH_CRUMB = np.uint64(0x5555555555555555)
_TO_NEXT_CRUMB = np.uint64(30)  # bits, of the second i of a pair
_NOT_TERNARY = "only int8 weights in {-1, 0, 1} can be packed"
_CODE_3 = "packed weights hold the code 3, which no ternary weight has"
_PADDING = "the padding of the packed weights is not zero"
_AT_ONCE = 1 << 18  # weights, in rows of tiles: they and their temporaries stay in a core's cache
_COUNTED = 1 << 15  # words at a time: a multiple of the 32 that the smallest matrix has
_VECTORS = 4  # at a time, of transposed weights


def packed_shape(n: int, k: int) -> tuple[int, int, int]:
    """The shape [N/16, K/16, 64] of the packed form of an (n, k) matrix, n and k at least 1."""
    tiles = -(-n // _ROWS)
    vectors = -(-k // _K_ALIGNMENT) * (_K_ALIGNMENT // _COLUMNS)
    return tiles, vectors, 4 * _ROWS


def pack(weights: Int8) -> Bytes:
    """(n, k) int8 in {-1, 0, 1} -> uint8 [N/16, K/16, 64].

    Raises:
        PackedWeightError: the matrix is empty, not two-dimensional or not ternary.
    """
    if weights.ndim != 2 or 0 in weights.shape:
        raise PackedWeightError(f"a weight matrix of shape {list(weights.shape)} cannot be packed")
    if weights.dtype != np.int8:
        raise PackedWeightError(_NOT_TERNARY)
    packed = np.empty(packed_shape(*weights.shape), np.uint8)
    is_transposed = weights.flags.f_contiguous and not weights.flags.c_contiguous
    (_pack_columns if is_transposed else _pack_rows)(weights, packed)
    return packed


def _encode(weights: Int8, codes: Bytes) -> None:
    """Fill the first rows and columns with the codes of weights; the rows behind become padding."""
    rows, columns = weights.shape
    np.add(weights, 1, out=codes[:rows, :columns].view(np.int8))
    codes[rows:] = 1
    if codes.max() > 2:
        raise PackedWeightError(_NOT_TERNARY)


def _tiles_at_once(packed: Bytes) -> int:
    tiles, vectors = map(int, packed.shape[:2])
    return min(tiles, max(1, _AT_ONCE // (_ROWS * _COLUMNS * vectors)))


def _pack_rows(weights: Int8, packed: Bytes) -> None:
    n = weights.shape[0]
    tiles, vectors, _ = packed.shape
    count = _tiles_at_once(packed)
    codes = np.ones((count * _ROWS, vectors * _COLUMNS), np.uint8)  # code 1 is the padding
    for tile in range(0, tiles, count):
        _encode(weights[tile * _ROWS : min((tile + count) * _ROWS, n)], codes)
        pairs = codes.view(_PAIR)
        words = (pairs | pairs >> _TO_NEXT_CRUMB).view(_WORD).reshape(-1, _ROWS, vectors, 4)
        crumbs = words[..., 0] | words[..., 2] << np.uint32(4)  # tile, n, vector
        part = packed[tile : tile + count]
        part.view(_WORD)[...] = crumbs.transpose(0, 2, 1)[: len(part)]


def _pack_columns(weights: Int8, packed: Bytes) -> None:
    """The same from the memory of (k, n) weights: crumbs of whole columns, and only those change places."""
    k = weights.shape[1]
    tiles, vectors, _ = packed.shape
    rows = tiles * _ROWS
    codes = np.ones((_VECTORS * _COLUMNS, rows), np.uint8)
    words = np.empty((_VECTORS, rows, 4), np.uint8)  # vector, n, kk
    for vector in range(0, vectors, _VECTORS):
        _encode(weights.T[vector * _COLUMNS : min((vector + _VECTORS) * _COLUMNS, k)], codes)
        crumbs = codes.view(_PAIR).reshape(_VECTORS, 4, 4, -1)  # vector, i, kk, n: no bit leaves its byte
        packed_columns = crumbs[:, 3]
        for i in (2, 1, 0):
            packed_columns = packed_columns << np.uint64(2) | crumbs[:, i]
        for kk in range(4):
            words[..., kk] = packed_columns[:, kk].view(np.uint8)
        part = packed.view(_WORD)[:, vector : vector + _VECTORS]
        part[...] = words.view(_WORD).reshape(_VECTORS, tiles, _ROWS).transpose(1, 0, 2)


def unpack(packed: Bytes, n: int, k: int, order: Order = "C") -> Int8:
    """uint8 [N/16, K/16, 64] -> (n, k) int8, the inverse of ``pack``.

    Raises:
        PackedWeightError: the shape is not that of an (n, k) matrix, a code is 3, or the padding
            holds something else than weight 0.
    """
    check_packed(packed, packed_shape(n, k), n, k)
    weights = np.empty((n, k), np.int8, order=order)
    (_unpack_columns if order == "F" else _unpack_rows)(packed, weights)
    return weights


def _unpack_rows(packed: Bytes, weights: Int8) -> None:
    n = weights.shape[0]
    tiles, vectors, _ = packed.shape
    count = _tiles_at_once(packed)
    codes = np.empty((count, _ROWS, vectors, 2), _PAIR)  # tile, n, vector, i / 2
    for tile in range(0, tiles, count):
        part = packed[tile : tile + count]
        words = part.view(_WORD).transpose(0, 2, 1).astype(_PAIR, order="C")
        words |= words << _TO_NEXT_CRUMB
        np.bitwise_and(words, _CRUMB_OF_EACH_BYTE, out=codes[: len(part), ..., 0])
        words >>= np.uint64(4)
        np.bitwise_and(words, _CRUMB_OF_EACH_BYTE, out=codes[: len(part), ..., 1])
        first, last = tile * _ROWS, min((tile + count) * _ROWS, n)
        matrix = codes.view(np.int8).reshape(-1, vectors * _COLUMNS)[: len(part) * _ROWS]
        _decode(matrix, weights[first:last])


def _unpack_columns(packed: Bytes, weights: Int8) -> None:
    """The same into the memory of (k, n) weights."""
    k = weights.shape[1]
    tiles, vectors, _ = packed.shape
    rows = tiles * _ROWS
    columns = np.empty((_VECTORS, 4, rows), np.uint8)  # vector, kk, n
    codes = np.empty((_VECTORS, 4, 4, rows), np.uint8)  # vector, i, kk, n
    for vector in range(0, vectors, _VECTORS):
        part = packed.reshape(tiles, vectors, _ROWS, 4)[:, vector : vector + _VECTORS]
        words = np.ascontiguousarray(part.transpose(1, 0, 2, 3)).reshape(_VECTORS, rows, 4)
        for kk in range(4):
            columns[:, kk] = words[..., kk]
        for i in range(4):
            crumbs = columns.view(_PAIR) >> np.uint64(2 * i)
            np.bitwise_and(crumbs, _CRUMB_OF_EACH_BYTE, out=codes[:, i].view(_PAIR))
        first, last = vector * _COLUMNS, min((vector + _VECTORS) * _COLUMNS, k)
        _decode(codes.view(np.int8).reshape(-1, rows), weights.T[first:last])


def _decode(codes: Int8, weights: Int8) -> None:
    """Fill the weights with the codes, which have rows and columns more: the padding."""
    rows, columns = weights.shape
    if codes.max() > 2:
        raise PackedWeightError(_CODE_3)
    if codes.shape != weights.shape and (np.any(codes[rows:] != 1) or np.any(codes[:rows, columns:] != 1)):
        raise PackedWeightError(_PADDING)
    np.subtract(codes[:rows, :columns], 1, out=weights)


def counts(packed: Bytes) -> tuple[int, int]:
    """How many weights are -1 and 1; the bytes are those that ``pack`` writes."""
    words = packed.reshape(-1).view(_PAIR)
    zeros = positive = 0
    for start in range(0, words.size, _COUNTED):
        part = words[start : start + _COUNTED]
        zeros += _number_of_bits(part & _BIT_OF_EACH_CRUMB)
        positive += _number_of_bits(part >> np.uint64(1) & _BIT_OF_EACH_CRUMB)
    return 4 * packed.size - zeros - positive, positive


def _number_of_bits(sums: NDArray[np.uint64]) -> int:
    """In words of which only the lower bit of each crumb may be set: sums of bits, in ever wider fields."""
    for width, fields in ((2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F)):
        halves = sums.reshape(2, -1)
        sums = halves[0] + halves[1]
        sums = (sums & np.uint64(fields)) + (sums >> np.uint64(width) & np.uint64(fields))
    return int(sums.reshape(8, -1).sum(axis=0).view(np.uint8).sum())  # of 8 times 16 at most in each byte


def _as_it_is(packed: Bytes, _n: int, _k: int) -> Bytes:
    return packed


_BYTE_WEIGHTS = (np.arange(256)[:, None] >> np.arange(0, 8, 2) & 3).astype(np.int8) - np.int8(1)
FORMAT = WeightFormat(
    "t2", 1, 2.0, _ROWS, _K_ALIGNMENT, _BYTE_WEIGHTS, packed_shape, pack, unpack, _as_it_is, _as_it_is
)
