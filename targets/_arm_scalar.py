"""The portable variant of arm64: plain vectors of 32-bit lanes, of which LLVM makes what it likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitcc.targets._dot import CRUMBS, VECTOR_BYTES
from bitcc.targets._scalar import QUARTERS, scalar_variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.targets._dot import Accumulators, Block
    from bitcc.targets._tir import Register, Tir

_COLUMNS = range(4)  # of a crumb: the bytes of a lane


def _multiply_packed(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector: each code is moved to the bottom of its lane."""
    for tile, offset in enumerate(block.w_offsets):
        for quarter in QUARTERS:
            rows = t.let(block.w.load(offset + 16 * quarter, "uint32x4"))
            for i in CRUMBS:
                for column in _COLUMNS:
                    codes = t.let(t.mask(t.shift_right(rows, 8 * column + 2 * i), 3))
                    _multiply(t, block, codes, 4 * i + column, _at(accumulators, tile, quarter))


def _multiply_unpacked(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector of bytes."""
    for tile, offset in enumerate(block.w_offsets):
        for quarter in QUARTERS:
            for i in CRUMBS:
                rows = t.let(block.w.load(offset + (i * VECTOR_BYTES + 16 * quarter), "uint32x4"))
                for column in _COLUMNS:
                    codes = t.let(t.mask(t.shift_right(rows, 8 * column), 3))
                    _multiply(t, block, codes, 4 * i + column, _at(accumulators, tile, quarter))


def _at(accumulators: Accumulators, tile: int, quarter: int) -> list[Register]:
    """The accumulators of four rows, by token."""
    return [tiles[tile][quarter] for tiles in accumulators]


def _multiply(t: Tir, block: Block, codes: Any, column: int, registers: Sequence[Register]) -> None:
    """A column of four rows times its activation of every token."""
    for q_offset, register in zip(block.q_offsets, registers, strict=True):
        q = t.cast("int32", block.q.load(q_offset + column, "int8"))
        register.set(register.get() + t.cast("int32x4", codes) * t.broadcast(q, 4))


VARIANT = scalar_variant(
    mcpu="generic",
    few_tokens=3,
    gemm_tokens=2,
    packed=_multiply_packed,
    unpacked=_multiply_unpacked,
    cpus="none: every arm64 with Linux has NEON; it is there to compare with",
)
