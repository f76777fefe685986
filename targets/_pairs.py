"""`pair` and `add_column`: what comes before and after `gemm_pairs` (kernel.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitcc.targets._dot import CRUMBS, VECTOR_BYTES, VECTOR_COLUMNS

if TYPE_CHECKING:
    from bitcc.targets._base import Tiles
    from bitcc.targets._tir import Tir

FIRST, SECOND = CRUMBS[2:]
"""The groups of four columns that are multiplied with each other."""
_VECTORS = 4  # that K is padded to
_COLUMNS = _VECTORS * VECTOR_COLUMNS
_LOW, _HIGH = -127, 125
"""Of their activations, so that the sums with codes from 0 to 3 fit in bytes."""
_SHIFTS = (0, 0, 127, -1)
"""What is added to each group: sums of the first of a pair are unsigned then, those of the second signed."""


def pair(t: Tir, a: Any, _tiles: Tiles) -> None:
    """Write the body of `pair`: four vectors at once, as many as K is padded to."""
    low = t.constants(_by_column(-128, _LOW), "int8")
    high = t.constants(_by_column(127, _HIGH), "int8")
    shifts = t.constants([shift % 256 for shift in _SHIFTS for _ in range(4)] * _VECTORS, "uint8")
    tokens = t.let(t.long(a.tokens))
    with t.loop(tokens) as token:
        q = t.let(token * t.long(a.q_stride))
        product = t.register(t.constant(0, f"int32x{4 * _VECTORS}"))
        changes = t.register(t.constant(0, f"int8x{_COLUMNS}"))
        with t.loop(t.long(a.k_blocks) // _VECTORS) as step:
            given = t.let(a.q.load(q + step * _COLUMNS, f"int8x{_COLUMNS}"))
            clamped = t.let(t.minimum(t.maximum(given, low), high))
            changes.set(changes.get() | (given ^ clamped))
            pairs = t.let(t.reinterpret(f"uint8x{_COLUMNS}", clamped) + shifts)
            for i in range(_VECTORS):
                out = ((step * _VECTORS + i) * tokens + token) * VECTOR_COLUMNS
                a.pairs.store(out, t.shuffle([pairs], range(i * VECTOR_COLUMNS, (i + 1) * VECTOR_COLUMNS)))
            first, second = (t.let(t.shuffle([pairs], _columns_of(i))) for i in (FIRST, SECOND))
            signed = t.reinterpret(f"int8x{4 * _VECTORS}", second)
            wide = f"int32x{4 * _VECTORS}"
            product.set(product.get() + t.cast(wide, first) * t.cast(wide, signed))
        a.product.store(token * 4, t.intrinsic("int32", "llvm.vector.reduce.add", product.get()))
        changed = t.intrinsic("int8", "llvm.vector.reduce.or", changes.get())
        a.clamped.store(token * 4, t.cast("int32", changed))


def add_column(t: Tir, a: Any, _tiles: Tiles) -> None:
    """Write the body of `add_column`: a lane is a row, with four columns of each group."""
    column = t.let(a.column % VECTOR_COLUMNS)
    bits = t.broadcast(t.cast("uint32", column % 4 * 8 + column // 4 * 2), 16)
    first = t.let(t.long(a.column // VECTOR_COLUMNS) * VECTOR_BYTES)
    with t.loop(t.long(a.tiles)) as tile:
        packed = a.w.load(first + tile * t.long(a.k_blocks) * VECTOR_BYTES, "uint32x16")
        codes = t.cast("int32x16", t.mask(packed >> bits, 3))
        acc = tile * VECTOR_BYTES
        a.acc.store(acc, a.acc.load(acc, "int32x16") + codes * t.broadcast(a.by, 16))


def _columns_of(group: int) -> list[int]:
    """Those of a group of four columns in each vector of a step."""
    return [column for column in range(_COLUMNS) if column % VECTOR_COLUMNS // 4 == group]


def _by_column(outside: int, inside: int) -> list[int]:
    """For each column of a step, one number outside of pairs and one inside."""
    pairs = {*_columns_of(FIRST), *_columns_of(SECOND)}
    return [inside if column in pairs else outside for column in range(_COLUMNS)]
