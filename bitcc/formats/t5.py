"""``t5``: five weights in a byte, 1.6 bits each, in the order of ``t2``.

N is padded to tiles of 16 rows, K to a multiple of 20. The packed array is uint8 [N/16, K/20, 64]: byte
4*n + kk of a 64-byte vector holds the codes c0 .. c4 of row 16*tile + n, columns 20*vector + 4*i + kk. The
first four are the number v = 27 c0 + 9 c1 + 3 c2 + c3, and the byte is 64 c4 + v where v < 64, and
192 + 3 (v - 64) + c4 = 3 v + c4 for the 17 others. docs/formats.md says why.

Both ways that is computed in words of four bytes, none of which ever carries into the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitcc.errors import PackedWeightError
from bitcc.formats._base import Bytes, WeightFormat
from bitcc.formats._tiles import ROWS, Tiling

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bitcc.formats._tiles import Words

_CODES = 5  # in a byte
_KNOWN = 3**_CODES  # bytes; those from there on are no weights
_THREE = np.uint32(3)
_SIX = np.uint32(6)  # bits
_LOWER_SIX, _UPPER_TWO = np.uint32(0x3F3F3F3F), np.uint32(0x03030303)  # of each byte; moved down
_POWERS = (81, 27, 9, 3, 1)


def _join(codes: Sequence[Words]) -> Words:
    v = codes[0] * _THREE
    for i in (1, 2):
        v += codes[i]
        v *= _THREE
    v += codes[3]
    small = codes[4] << _SIX
    small += v
    is_small = _are_below(v, 64)
    v *= _THREE
    v += codes[4]
    return _chosen(is_small, small, v)


def _number(joined: Words) -> Words:
    """3 v + c4, whose digits to base 3 are the codes: large bytes are that, and of the others it is made."""
    number = joined & _LOWER_SIX
    number *= _THREE
    number += joined >> _SIX & _UPPER_TWO
    return _chosen(_are_below(joined, 192), number, joined)


def _split(joined: Words) -> Iterable[Words]:
    """The digits of the numbers, one after the other."""
    largest = joined.view(np.uint8).max()
    if largest >= _KNOWN:
        raise PackedWeightError(f"packed weights hold the byte {largest}, which no ternary weights have")
    number = _number(joined)
    digits = number.view(np.uint8)
    for power in _POWERS[:-1]:
        code = digits // np.uint8(power)
        yield code.view(np.uint32)
        digits -= code * np.uint8(power)
    yield number


def _are_below(words: Words, limit: int) -> Words:
    """All bits of the bytes that are."""
    return np.negative((words.view(np.uint8) < np.uint8(limit)).view(np.uint8)).view(np.uint32)


def _chosen(mask: Words, words: Words, others: Words) -> Words:
    """The bytes of ``words`` where all bits of the mask are set, of ``others`` where none is."""
    words ^= others
    words &= mask
    words ^= others
    return words


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
_TILING = Tiling(_CODES, 1, _join, _split, _POWERS, _number)
packed_shape, pack, unpack, holds = _TILING.packed_shape, _TILING.pack, _TILING.unpack, _TILING.holds

_BYTE_WEIGHTS = _CODES_OF.astype(np.int8) - np.int8(1)
FORMAT = WeightFormat("t5", 1, 8 / _CODES, ROWS, 4 * _CODES, _BYTE_WEIGHTS, packed_shape, pack, unpack, holds)
