"""``t2``: two bits a weight, in the order in which vector units want them.

Codes are c = w + 1. N is padded to tiles of 16 rows, K to blocks of 64 columns, both with weight 0.
The packed array is uint8 [N/16, K/16, 64]: byte 4*n + kk of a 64-byte vector holds, in bits
2i..2i+1, the code of row 16*tile + n, column 16*vector + 4*i + kk. docs/formats.md says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitcc.errors import PackedWeightError
from bitcc.formats._base import WeightFormat
from bitcc.formats._tiles import ROWS, Tiling

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bitcc.formats._tiles import Words

_CODES = 4  # in a byte
_K_ALIGNMENT = 64
_POWERS = (1, 4, 16, 64)
_BIT, _CRUMB = np.uint32(1), np.uint32(2)
_FIRST_CRUMB = np.uint32(0x03030303)  # of each byte
_LOW_BITS = np.uint32(0x55555555)  # of each crumb
_CODE_3 = "packed weights hold the code 3, which no ternary weight has"


def _join(codes: Sequence[Words]) -> Words:
    joined = codes[3] << _CRUMB
    for i in (2, 1):
        joined |= codes[i]
        joined <<= _CRUMB
    joined |= codes[0]
    return joined


def _split(joined: Words) -> Iterable[Words]:
    if np.any(joined & joined >> _BIT & _LOW_BITS):
        raise PackedWeightError(_CODE_3)
    yield joined & _FIRST_CRUMB
    for _ in range(1, _CODES):
        joined = joined >> _CRUMB
        yield joined & _FIRST_CRUMB


def _number(joined: Words) -> Words:
    """The bytes themselves, whose digits to base 4 are the codes."""
    return joined


_TILING = Tiling(_CODES, _K_ALIGNMENT // (4 * _CODES), _join, _split, _POWERS, _number)
packed_shape, pack, unpack, holds = _TILING.packed_shape, _TILING.pack, _TILING.unpack, _TILING.holds

_BYTE_WEIGHTS = (np.arange(256)[:, None] >> np.arange(0, 8, 2) & 3).astype(np.int8) - np.int8(1)
FORMAT = WeightFormat("t2", 1, 2.0, ROWS, _K_ALIGNMENT, _BYTE_WEIGHTS, packed_shape, pack, unpack, holds)
