"""``t5``: five weights in a byte, 1.6 bits each, in the order of ``t2``.

N is padded to tiles of 16 rows, K to a multiple of 20. The packed array is uint8 [N/16, K/20, 64]: byte
4*n + kk of a 64-byte vector holds the codes c0 .. c4 of row 16*tile + n, columns 20*vector + 4*i + kk. The
first four are the number v = 27 c0 + 9 c1 + 3 c2 + c3, and the byte is 64 c4 + v where v < 64, and
192 + 3 (v - 64) + c4 for the 17 others. docs/formats.md says why.

So the bytes at one place of all vectors of a tile are a stream of codes of two bits, ten bits to the byte,
and those of ``t2`` are the same stream, eight to the byte: packing and unpacking go through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bitcc.errors import PackedWeightError
from bitcc.formats import t2
from bitcc.formats._base import Bytes, Int8, Order, WeightFormat, check_packed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Bits: TypeAlias = NDArray[np.uint16]

_ROWS = 16  # of a tile
_CODES = 5  # in a byte
_BITS, _T2_BITS = 10, 8  # of the stream, to a byte
_CYCLE, _T2_CYCLE = 4, 5  # bytes of as many bits
_COLUMNS = 4 * _CODES  # of one 64-byte vector
_KNOWN = 3**_CODES  # bytes; those from there on are no weights
_ALL_ONES, _T2_ALL_ONES = 0x155, 0x55  # bits of codes 1: the padding
_AT_ONCE = 1 << 18  # bytes: they and their temporaries stay in a core's cache
_EIGHT = np.dtype(np.uint64)  # bytes, which are moved together


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
_PAIRS = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
_BITS_OF_TWO = _BITS_OF[_PAIRS].view(np.uint32).reshape(-1)
_BYTE_OF = np.zeros(1 << _BITS, np.uint8)
_BYTE_OF[_BITS_OF[:_KNOWN]] = np.arange(_KNOWN)


def packed_shape(n: int, k: int) -> tuple[int, int, int]:
    """The shape [N/16, K/20, 64] of the packed form of an (n, k) matrix, n and k at least 1."""
    tiles, _, size = t2.packed_shape(n, k)
    return tiles, -(-k // _COLUMNS), size


def pack(weights: Int8) -> Bytes:
    """(n, k) int8 in {-1, 0, 1} -> uint8 [N/16, K/20, 64].

    Raises:
        PackedWeightError: the matrix is empty, not two-dimensional or not ternary.
    """
    return from_t2(t2.pack(weights), *weights.shape)


def from_t2(crumbs: Bytes, n: int, k: int) -> Bytes:
    """(n, k) weights as ``t2.pack`` packs them -> uint8 [N/16, K/20, 64]."""
    packed = np.empty(packed_shape(n, k), np.uint8)
    cycles = -(-packed.shape[1] // _CYCLE)
    for tiles in _tiles(packed):
        stream = _by_place(crumbs[tiles], _T2_CYCLE, cycles, _T2_ALL_ONES)
        bits = _regrouped(stream.astype(np.uint16), _T2_BITS, _BITS)
        found = _in_order(np.take(_BYTE_OF, bits, mode="clip"), cycles)
        packed[tiles] = found[:, : packed.shape[1]]
    return packed


def unpack(packed: Bytes, n: int, k: int, order: Order = "C") -> Int8:
    """uint8 [N/16, K/20, 64] -> (n, k) int8, the inverse of ``pack``.

    Raises:
        PackedWeightError: as ``to_t2``.
    """
    return t2.unpack(to_t2(packed, n, k), n, k, order)


def to_t2(packed: Bytes, n: int, k: int) -> Bytes:
    """The inverse of ``from_t2``.

    Raises:
        PackedWeightError: the shape is not that of an (n, k) matrix, a byte is 243 or more, or the padding
            holds something else than weight 0.
    """
    check_packed(packed, packed_shape(n, k), n, k)
    largest = packed.max()
    if largest >= _KNOWN:
        raise PackedWeightError(f"packed weights hold the byte {largest}, which no ternary weights have")
    crumbs = np.full(t2.packed_shape(n, k), _T2_ALL_ONES, np.uint8)
    cycles = -(-packed.shape[1] // _CYCLE)
    for tiles in _tiles(packed):
        stream = _by_place(packed[tiles], _CYCLE, cycles, _BYTE_OF[_ALL_ONES])
        bits = np.take(_BITS_OF_TWO, stream.view(np.uint16), mode="clip").view(np.uint16)
        found = _in_order(_regrouped(bits, _BITS, _T2_BITS).astype(np.uint8), cycles)
        inside = found[:, : crumbs.shape[1]]
        crumbs[tiles, : inside.shape[1]] = inside
        if np.any(found[:, crumbs.shape[1] :] != _T2_ALL_ONES):
            raise PackedWeightError("the padding of the packed weights is not zero")
    return crumbs


def _tiles(packed: Bytes) -> Iterator[slice]:
    """Which ones to convert together."""
    count = max(1, _AT_ONCE // packed[0].size)
    return (slice(first, first + count) for first in range(0, len(packed), count))


def _by_place(vectors: Bytes, cycle: int, cycles: int, padding: int) -> Bytes:
    """[tiles, vectors, 64] -> uint8 [cycle, tiles * cycles * 64]: what is in one place of each cycle."""
    tiles, count, size = vectors.shape
    whole = np.empty((tiles, cycles * cycle, size), np.uint8)
    whole[:, :count] = vectors[:, : cycles * cycle]
    whole[:, count:] = padding
    places = whole.view(_EIGHT).reshape(tiles, cycles, cycle, -1).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(places).view(np.uint8).reshape(cycle, -1)


def _in_order(places: Bytes, cycles: int) -> Bytes:
    """The inverse of ``_by_place``, with the padding."""
    cycle, size = len(places), t2.packed_shape(1, 1)[2]
    vectors = places.view(_EIGHT).reshape(cycle, -1, cycles, size // _EIGHT.itemsize).transpose(1, 2, 0, 3)
    return np.ascontiguousarray(vectors).view(np.uint8).reshape(-1, cycles * cycle, size)


def _regrouped(stream: Bits, given: int, wanted: int) -> Bits:
    """A cycle of ``given`` bits in each place, the first ones lowest, as one of ``wanted`` bits in each."""
    places = len(stream) * given // wanted
    result = np.empty((places, stream.shape[1]), np.uint16)
    for place in range(places):
        first, shift = divmod(place * wanted, given)
        bits = stream[first] >> shift
        if shift + wanted > given:
            bits |= stream[first + 1] << given - shift
        np.bitwise_and(bits, (1 << wanted) - 1, out=result[place])
    return result


_BYTE_WEIGHTS = _CODES_OF.astype(np.int8) - np.int8(1)
FORMAT = WeightFormat(
    "t5", 1, 8 / _CODES, _ROWS, _COLUMNS, _BYTE_WEIGHTS, packed_shape, pack, unpack, from_t2, to_t2
)
