"""``t2``: two bits a weight, in the order in which vector units want them.

Codes are c = w + 1. N is padded to tiles of 16 rows, K to blocks of 64 columns, both with weight 0.
The packed array is uint8 [N/16, K/16, 64]: byte 4*n + kk of a 64-byte vector holds, in bits
2i..2i+1, the code of row 16*tile + n, column 16*vector + 4*i + kk. docs/formats.md says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitcc.errors import PackedWeightError
from bitcc.formats._base import Bytes, Int8, WeightFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROWS = 16
_COLUMNS = 16  # of one 64-byte vector
_K_ALIGNMENT = 64
_ALL_ZERO_WEIGHTS = 0b01010101  # four codes 1
_WORD = np.dtype(np.uint32)  # the four bytes kk of one row: bytes never change places within
_CRUMB_OF_EACH_BYTE = np.uint32(0x03030303)
_BLOCK = 4  # tiles at a time: they and their temporaries stay in a core's cache


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
    if weights.dtype != np.int8 or weights.min() < -1 or weights.max() > 1:
        raise PackedWeightError("only int8 weights in {-1, 0, 1} fit `t2`")
    n, k = weights.shape
    tiles, vectors, size = packed_shape(n, k)
    packed = np.empty((tiles, vectors, size), np.uint8)
    codes = np.ones((_BLOCK * _ROWS, vectors * _COLUMNS), np.uint8)  # code 1 is the padding
    for tile in range(0, tiles, _BLOCK):
        first, last = tile * _ROWS, min((tile + _BLOCK) * _ROWS, n)
        np.add(weights[first:last], 1, out=codes[: last - first, :k].view(np.int8))
        codes[last - first :] = 1
        words = codes.view(_WORD).reshape(-1, _ROWS, vectors, 4)  # tile, n, vector, i
        crumbs = words[..., 0] | words[..., 1] << 2 | words[..., 2] << 4 | words[..., 3] << 6
        part = packed[tile : tile + _BLOCK]
        part.view(_WORD)[...] = crumbs.transpose(0, 2, 1)[: len(part)]
    return packed


def unpack(packed: Bytes, n: int, k: int) -> Int8:
    """uint8 [N/16, K/16, 64] -> (n, k) int8, the inverse of ``pack``.

    Raises:
        PackedWeightError: the shape is not that of an (n, k) matrix, a code is 3, or the padding
            holds something else than weight 0.
    """
    if packed.dtype != np.uint8 or packed.shape != packed_shape(n, k):
        raise PackedWeightError(
            f"packed weights are {packed.dtype} {list(packed.shape)}, "
            f"expected uint8 {list(packed_shape(n, k))} for N = {n}, K = {k}"
        )
    if np.any(packed & (packed >> 1) & _ALL_ZERO_WEIGHTS):
        raise PackedWeightError("packed weights hold the code 3, which no ternary weight has")
    tiles, vectors, _ = packed.shape
    weights = np.empty((n, k), np.int8)
    codes = np.empty((_BLOCK, _ROWS, vectors, 4), _WORD)  # tile, n, vector, i
    for tile in range(0, tiles, _BLOCK):
        part = packed[tile : tile + _BLOCK]
        words = np.ascontiguousarray(part.view(_WORD).transpose(0, 2, 1))
        for i in range(4):
            codes[: len(part), ..., i] = (words >> np.uint32(2 * i)) & _CRUMB_OF_EACH_BYTE
        first, last = tile * _ROWS, min((tile + _BLOCK) * _ROWS, n)
        matrix = codes.view(np.uint8).reshape(-1, vectors * _COLUMNS)[: len(part) * _ROWS]
        if np.any(matrix[last - first :] != 1) or np.any(matrix[: last - first, k:] != 1):
            raise PackedWeightError("the padding of the packed weights is not zero")
        np.subtract(matrix[: last - first, :k].view(np.int8), 1, out=weights[first:last])
    return weights


def stack(parts: Sequence[tuple[Bytes, int]], k: int) -> Bytes:
    """(packed, n) of several (n, k) matrices -> packed, of all their rows below one another.

    Raises:
        PackedWeightError: a part is not what ``unpack`` takes.
    """
    if all(n % _ROWS == 0 for _, n in parts[:-1]):
        return np.concatenate([packed for packed, _ in parts])
    return pack(np.concatenate([unpack(packed, n, k) for packed, n in parts]))


FORMAT = WeightFormat("t2", 1, 2.0, packed_shape, pack, unpack, stack)
