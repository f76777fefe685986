"""`gemv_float` for CPUs without a table in a register: the tables are in L1.

A byte of packed weights is four columns of one row. What these add to the row is one of 256 floats, which
are computed once for all rows of a call. That takes as long as some hundred rows: `Walk.tiles` says how many
tiles a call should have, and it may have any number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitcc.targets._dot import VECTOR_BYTES, VECTOR_COLUMNS
from bitcc.targets._matmul_float import FLOAT_BYTES

if TYPE_CHECKING:
    from bitcc.targets._base import Tiles
    from bitcc.targets._tir import Pointer, Tir

_TABLE_BYTES = 256 * FLOAT_BYTES
_LANES = 4


def gemv_float_by_table(t: Tir, a: Any, tiles: Tiles) -> None:
    """Write the body: for each vector of 16 columns its four tables, then all tiles."""
    tables = t.memory(4 * _TABLE_BYTES)
    begin, k_blocks = t.let(t.long(a.begin)), t.let(t.long(a.k_blocks))
    count = t.let(t.long(a.end) - begin)
    with t.loop(count * (16 // _LANES)) as i:
        a.acc.store(i * _LANES * FLOAT_BYTES, t.floats(0, _LANES))
    with t.loop(k_blocks) as vector:
        for byte in range(4):
            _write_table(t, a, t.let(vector * VECTOR_COLUMNS + byte), (tables, byte * _TABLE_BYTES))
        group = t.let(vector // t.long(a.group_vectors))
        scales = t.let(group * t.long(a.scale_stride) + begin * 16)
        with t.loop(count) as tile:
            offset = t.let(((begin + tile) * k_blocks + vector) * VECTOR_BYTES)
            if tiles.gemv_float.prefetch:
                a.w.prefetch(offset + tiles.gemv_float.prefetch)
            for row in range(16):
                codes = t.let(a.w.load(offset + 4 * row, "uint32"))
                out = t.let((tile * 16 + row) * FLOAT_BYTES)
                scale = a.scale.load((scales + (tile * 16 + row)) * FLOAT_BYTES, "float32")
                total = a.acc.load(out, "float32") + scale * _look_up(t, tables, codes)
                a.acc.store(out, t.let(total))


def _look_up(t: Tir, tables: Pointer, codes: Any) -> Any:
    """What 16 columns add to a row."""
    parts = []
    for byte in range(4):
        index = t.mask(t.shift_right(codes, 8 * byte), 255)
        parts.append(tables.load(t.long(index) * FLOAT_BYTES + byte * _TABLE_BYTES, "float32"))
    return (parts[0] + parts[1]) + (parts[2] + parts[3])


def _write_table(t: Tir, a: Any, first: Any, table: tuple[Pointer, int]) -> None:
    """The table of the columns first, first + 4, first + 8 and first + 12."""
    memory, start = table
    x = [t.let(a.x.load((first + 4 * i) * FLOAT_BYTES, "float32")) for i in range(4)]
    weights = t.cast("float32x4", t.lane_numbers(_LANES)) - t.floats(1, _LANES)
    low = t.let(t.broadcast(x[0], _LANES) * weights)
    pairs = [t.let(low + t.broadcast(_product(t, x[1], code), _LANES)) for code in range(4)]
    for third in range(4):
        for fourth in range(4):
            high = t.let(_product(t, x[2], third) + _product(t, x[3], fourth))
            for second, pair in enumerate(pairs):
                index = second * 4 + third * 16 + fourth * 64
                memory.store(start + index * FLOAT_BYTES, pair + t.broadcast(high, _LANES))


def _product(t: Tir, x: Any, code: int) -> Any:
    """The activation times the weight of a code. An intrinsic, since TVM takes x * 0 for 0: also Inf * 0."""
    return t.let(t.intrinsic("float32", "llvm.fmuladd", x, t.floats(code - 1, 1), t.floats(0, 1)))
