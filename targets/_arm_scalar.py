"""The portable variant of arm64: plain vectors of 32-bit lanes, of which LLVM makes what it likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitcc.targets._activations import Absmax, Quantize
from bitcc.targets._base import Kernels, Tiles, Variant, Walk
from bitcc.targets._dot import CRUMBS, VECTOR_BYTES, Dot
from bitcc.targets._finish import Finish
from bitcc.targets._gemv_float_table import gemv_float_by_table
from bitcc.targets._matmul import Gemm, GemmFew, Gemv, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.targets._dot import Accumulators, Block
    from bitcc.targets._tir import Register, Tir

_QUARTERS = range(4)  # 16-byte quarters of a vector: four rows each
_COLUMNS = range(4)  # of a crumb: the bytes of a lane


def _multiply_packed(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector: each code is moved to the bottom of its lane."""
    for tile, offset in enumerate(block.w_offsets):
        for quarter in _QUARTERS:
            rows = t.let(block.w.load(offset + 16 * quarter, "uint32x4"))
            for i in CRUMBS:
                for column in _COLUMNS:
                    codes = t.let(t.mask(t.shift_right(rows, 8 * column + 2 * i), 3))
                    _multiply(t, block, codes, 4 * i + column, _at(accumulators, tile, quarter))


def _multiply_unpacked(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector of bytes."""
    for tile, offset in enumerate(block.w_offsets):
        for quarter in _QUARTERS:
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


_REGISTERS = ("int32x4",) * 4
_PACKED = Dot(1, _REGISTERS, _multiply_packed, lambda _, sums: sums)

VARIANT = Variant(
    name="scalar",
    features="0",
    mcpu="generic",
    mattr=(),
    tiles=Tiles(
        gemv=Walk(1),
        gemm_few=(Walk(1),) * 2,
        gemm=Walk(1),
        gemm_tokens=2,
        gemv_float=Walk(32, prefetch=256),
    ),
    kernels=Kernels(
        absmax=Absmax(4),
        quantize=Quantize(4, divide=False),
        quantize_divide=Quantize(4, divide=True),
        gemv=Gemv(_PACKED),
        gemm_few=GemmFew(_PACKED),
        unpack=unpack,
        gemm=Gemm(Dot(1, _REGISTERS, _multiply_unpacked, lambda _, sums: sums)),
        finish=Finish(4, bias_first=False),
        finish_bias_first=Finish(4, bias_first=True),
        gemv_float=gemv_float_by_table,
    ),
    cpus="none: every arm64 with Linux has NEON; it is there to compare with",
)
