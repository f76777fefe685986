"""``t5``: five weights in a byte, 1.6 bits each, in the order of ``t2``.

N is padded to tiles of 16 rows, K to a multiple of 20. The packed array is uint8 [N/16, K/20, 64]: byte
4*n + kk of a 64-byte vector holds the codes c0 .. c4 of row 16*tile + n, columns 20*vector + 4*i + kk. The
first four are the number v = 27 c0 + 9 c1 + 3 c2 + c3, and the byte is 64 c4 + v where v < 64, and
192 + 3 (v - 64) + c4 for the 17 others. docs/formats.md says why.

So the bytes at one place of all vectors of a tile are a stream of codes, and those of ``t2`` are the same
stream, four to the byte: packing and unpacking go through it.
"""

from __future__ import annotations

import numpy as np

from bitcc.errors import PackedWeightError
from bitcc.formats import t2
from bitcc.formats._base import Bytes, Int8, Order, WeightFormat, check_packed

_ROWS = 16  # of a tile
_CODES = 5  # in a byte
_T2_CODES = 4
_COLUMNS = 4 * _CODES  # of one 64-byte vector
_KNOWN = 3**_CODES  # bytes; those from there on are no weights
_TILES = 4  # at a time: they and their temporaries stay in a core's cache


def _codes_of_bytes() -> Bytes:
    """uint8 [256, 5]: the codes of each byte, 1 for those of no weights."""
    byte = np.arange(256)
    escaped = byte - 192
    v = np.where(escaped < 0, byte % 64, 64 + escaped // 3)
    last = np.where(escaped < 0, byte // 64, escaped % 3)
    codes = np.stack([v // 27, v // 9 % 3, v // 3 % 3, v % 3, last], axis=1).astype(np.uint8)
    codes[_KNOWN:] = 1
    return codes


_CODES_OF = _codes_of_bytes()
_BITS_OF = (_CODES_OF.astype(np.uint16) << np.arange(0, 10, 2, dtype=np.uint16)).sum(1, dtype=np.uint16)
_BYTE_OF = np.empty(_KNOWN, np.uint8)  # of the number whose digits are the codes
_BYTE_OF[_CODES_OF[:_KNOWN] @ (3 ** np.arange(_CODES)[::-1])] = np.arange(_KNOWN)


def packed_shape(n: int, k: int) -> tuple[int, int, int]:
    """The shape [N/16, K/20, 64] of the packed form of an (n, k) matrix, n and k at least 1."""
    tiles, _, size = t2.packed_shape(n, k)
    return tiles, -(-k // _COLUMNS), size


def pack(weights: Int8) -> Bytes:
    """(n, k) int8 in {-1, 0, 1} -> uint8 [N/16, K/20, 64].

    Raises:
        PackedWeightError: the matrix is empty, not two-dimensional or not ternary.
    """
    crumbs = t2.pack(weights)
    packed = np.empty(packed_shape(*weights.shape), np.uint8)
    given, wanted = _T2_CODES * crumbs.shape[1], _CODES * packed.shape[1]
    codes = np.ones((_TILES, max(given, wanted), packed.shape[2]), np.uint8)  # code 1 is the padding
    for tile in range(0, len(packed), _TILES):
        part = packed[tile : tile + _TILES]
        for i in range(_T2_CODES):
            codes[: len(part), i:given:_T2_CODES] = crumbs[tile : tile + _TILES] >> 2 * i & 3
        number = np.zeros(part.shape, np.uint8)
        for i in range(_CODES):
            number *= 3
            number += codes[: len(part), i:wanted:_CODES]
        np.take(_BYTE_OF, number, out=part)
    return packed


def unpack(packed: Bytes, n: int, k: int, order: Order = "C") -> Int8:
    """uint8 [N/16, K/20, 64] -> (n, k) int8, the inverse of ``pack``.

    Raises:
        PackedWeightError: the shape is not that of an (n, k) matrix, a byte is 243 or more, or the padding
            holds something else than weight 0.
    """
    check_packed(packed, packed_shape(n, k), n, k)
    largest = packed.max()
    if largest >= _KNOWN:
        raise PackedWeightError(f"packed weights hold the byte {largest}, which no ternary weights have")
    crumbs = np.empty(t2.packed_shape(n, k), np.uint8)
    given, wanted = _CODES * packed.shape[1], _T2_CODES * crumbs.shape[1]
    codes = np.ones((_TILES, max(given, wanted), packed.shape[2]), np.uint8)
    for tile in range(0, len(packed), _TILES):
        part = crumbs[tile : tile + _TILES]
        bits = _BITS_OF[packed[tile : tile + _TILES]]
        for i in range(_CODES):
            codes[: len(part), i:given:_CODES] = bits >> 2 * i & 3
        if np.any(codes[: len(part), wanted:] != 1):
            raise PackedWeightError("the padding of the packed weights is not zero")
        part[...] = codes[: len(part), 0:wanted:_T2_CODES]
        for i in range(1, _T2_CODES):
            part |= codes[: len(part), i:wanted:_T2_CODES] << 2 * i
    return t2.unpack(crumbs, n, k, order)


_BYTE_WEIGHTS = _CODES_OF.astype(np.int8) - np.int8(1)
FORMAT = WeightFormat("t5", 1, 8 / _CODES, _ROWS, _COLUMNS, _BYTE_WEIGHTS, packed_shape, pack, unpack)
