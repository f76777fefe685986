"""ARMv8.2 with dot products: `sdot` adds four products of signed bytes to each 32-bit lane, a row.

A vector of 16 activations serves all four crumbs: `sdot` takes the four columns of a crumb by lane.

The sizes of its tiles are chosen on paper, for cores like Cortex-A76, X1 and Neoverse N1 (docs/arm64.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bitcc.targets import _arm_neon
from bitcc.targets._base import Variant, Walk
from bitcc.targets._dot import CRUMBS, VECTOR_BYTES, Dot
from bitcc.targets._matmul import Gemm, GemmFew, Gemv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.targets._dot import Accumulators, Block
    from bitcc.targets._tir import Register, Tir

QUARTERS = range(4)  # 16-byte quarters of a vector: four rows each


def _multiply_in_place(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector of one token, whose lower crumbs keep their places.

    Crumbs 0, 1 and 2 count 1, 4 and 16 times, as bytes of at most 48. The last one would be 192, no signed
    byte: it is moved to the bottom, which takes one instruction as well, and counts with the first.
    |accumulator 2| <= 48 * 128 * 65536 / 4 < 2^31.
    """
    q = _columns(t, block, 0)
    for tile, offset in enumerate(block.w_offsets):
        for quarter in QUARTERS:
            codes = load(t, block, offset + 16 * quarter)
            for i in CRUMBS[:3]:
                register = accumulators[0][tile][len(QUARTERS) * i + quarter]
                add_by_lane(t, register, t.mask(codes, 3 << 2 * i), q[i])
            add_by_lane(t, accumulators[0][tile][quarter], t.shift_right(codes, 6), q[3])


def _combine(t: Tir, sums: Sequence[Any]) -> Sequence[Any]:
    """The exact quotients of the three accumulators of each quarter."""
    return [
        sums[quarter] + t.shift_right(sums[4 + quarter], 2) + t.shift_right(sums[8 + quarter], 4)
        for quarter in QUARTERS
    ]


def _multiply_unpacking(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector; each crumb is moved to the bottom once and used for every token."""
    q = [_columns(t, block, token) for token, _ in enumerate(accumulators)]
    for tile, offset in enumerate(block.w_offsets):
        for quarter in QUARTERS:
            packed = load(t, block, offset + 16 * quarter)
            for i in CRUMBS:
                codes = t.let(t.mask(t.shift_right(packed, 2 * i), 3))
                for token, tiles in enumerate(accumulators):
                    add_by_lane(t, tiles[tile][quarter], codes, q[token][i])


def _multiply_unpacked(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector of bytes."""
    q = [_columns(t, block, token) for token, _ in enumerate(accumulators)]
    for tile, offset in enumerate(block.w_offsets):
        for i in CRUMBS:
            for quarter in QUARTERS:
                codes = load(t, block, offset + (i * VECTOR_BYTES + 16 * quarter))
                for token, tiles in enumerate(accumulators):
                    add_by_lane(t, tiles[tile][quarter], codes, q[token][i])


def load(t: Tir, block: Block, offset: Any) -> Any:
    """Four rows."""
    return t.let(block.w.load(offset, "uint8x16"))


def _columns(t: Tir, block: Block, token: int) -> list[Any]:
    """By crumb, its four activations of a token, for every row."""
    sixteen = t.let(block.q.load(block.q_offsets[token], "int32x4"))
    return [of_crumb(t, sixteen, i) for i in CRUMBS]


def of_crumb(t: Tir, sixteen: Any, i: int) -> Any:
    """Four of 16 activations, for every row."""
    return t.reinterpret("int8x16", t.shuffle([sixteen], [i] * 4))


def add_by_lane(t: Tir, accumulator: Register, codes: Any, q: Any) -> None:
    """Add the products of four rows; `q` is no instruction of its own but a lane of one."""
    signed = t.reinterpret("int8x16", codes)
    dot = t.intrinsic("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", accumulator.get(), signed, q)
    accumulator.set(dot)


_REGISTERS = ("int32x4",) * 4
_NEON = _arm_neon.VARIANT

VARIANT = Variant(
    name="dotprod",
    features="BITCC_CPU_DOTPROD",
    mcpu="generic",
    mattr=("+v8.2a", "+dotprod"),
    tiles=replace(
        _NEON.tiles,
        gemv=Walk(1, unroll=2),
        gemm_few=(Walk(1),) * 4,
        gemm_tokens=6,
        panel_vectors=32,
    ),
    kernels=replace(
        _NEON.kernels,
        gemv=Gemv(Dot(1, _REGISTERS * 3, _multiply_in_place, _combine)),
        gemm_few=GemmFew(Dot(1, _REGISTERS, _multiply_unpacking, lambda _, sums: sums)),
        gemm=Gemm(Dot(1, _REGISTERS, _multiply_unpacked, lambda _, sums: sums)),
    ),
    cpus="Cortex-A55, A75 to A78 and X1, Neoverse N1",
)
