"""ARMv8.6 with int8 matrices: `smmla` multiplies 2 rows x 8 columns by 8 columns x 2 tokens.

Two crumbs of four rows, interleaved lane by lane, are eight columns of two rows and of two more. A token
without a second one takes `sdot`, as `gemv` does: half of `smmla` would be idle.

The sizes of its tiles are chosen on paper, for cores like Cortex-X2 and Neoverse V1 (docs/arm64.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bitcc.targets import _arm_dotprod
from bitcc.targets._arm_dotprod import QUARTERS, add_by_lane, load, of_crumb
from bitcc.targets._base import Variant, Walk
from bitcc.targets._dot import CRUMBS, VECTOR_BYTES, Dot
from bitcc.targets._matmul import Gemm, GemmFew

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bitcc.targets._dot import Accumulators, Block
    from bitcc.targets._tir import Register, Tir

    Codes = Callable[[Any], Sequence[Any]]

_LOW, _HIGH = (0, 4, 1, 5), (2, 6, 3, 7)  # lanes of 32 bits of two vectors, interleaved
_FIRST, _SECOND = (0, 2), (1, 3)  # the same of 64 bits


def _multiply_unpacking(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector; each crumb is moved to the bottom once and used for every token."""

    def crumbs(offset: Any) -> Sequence[Any]:
        packed = load(t, block, offset)
        return [t.let(t.mask(t.shift_right(packed, 2 * i), 3)) for i in CRUMBS]

    _multiply(t, block, crumbs, accumulators)


def _multiply_unpacked(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector of bytes."""

    def codes(offset: Any) -> Sequence[Any]:
        return [load(t, block, offset + i * VECTOR_BYTES) for i in CRUMBS]

    _multiply(t, block, codes, accumulators)


def _multiply(t: Tir, block: Block, codes: Codes, accumulators: Accumulators) -> None:
    """One vector, of which `codes` gives the crumbs of four rows.

    The products of the first two rows of a quarter with two tokens are in the accumulator of the first
    token, those of the other two rows in that of the second one: `_by_token` puts them in order.
    """
    q = [t.let(block.q.load(offset, "int64x2")) for offset in block.q_offsets]
    even = len(q) // 2 * 2
    pairs = [
        (token, [t.let(t.shuffle(q[token : token + 2], lanes)) for lanes in (_FIRST, _SECOND)])
        for token in range(0, even, 2)
    ]
    for tile, offset in enumerate(block.w_offsets):
        for quarter in QUARTERS:
            crumbs = codes(offset + 16 * quarter)
            for half in range(2):  # of the columns
                two = [t.reinterpret("int32x4", crumb) for crumb in crumbs[2 * half : 2 * half + 2]]
                for rows, lanes in enumerate((_LOW, _HIGH)):
                    w = t.let(t.shuffle(two, lanes))
                    for token, columns in pairs:
                        _add(t, accumulators[token + rows][tile][quarter], columns[half], w)
            if even < len(q):
                last = t.reinterpret("int32x4", q[-1])
                for i, crumb in enumerate(crumbs):
                    add_by_lane(t, accumulators[-1][tile][quarter], crumb, of_crumb(t, last, i))


def _add(t: Tir, accumulator: Register, q: Any, w: Any) -> None:
    a, b = (t.reinterpret("int8x16", value) for value in (q, w))
    name = "llvm.aarch64.neon.smmla.v4i32.v16i8"
    accumulator.set(t.intrinsic("int32x4", name, accumulator.get(), a, b))


def _by_token(t: Tir, accumulators: Accumulators) -> None:
    """From two rows of two tokens to four rows of one."""
    for token in range(0, len(accumulators) // 2 * 2, 2):
        for first, second in zip(*(tile for tile in accumulators[token : token + 2]), strict=True):
            for registers in zip(first, second, strict=True):
                both = [t.let(t.reinterpret("int64x2", register.get())) for register in registers]
                for register, lanes in zip(registers, (_FIRST, _SECOND), strict=True):
                    register.set(t.reinterpret("int32x4", t.shuffle(both, lanes)))


_REGISTERS = ("int32x4",) * 4
_DOTPROD = _arm_dotprod.VARIANT

VARIANT = Variant(
    name="i8mm",
    features="BITCC_CPU_I8MM",
    mcpu="generic",
    mattr=(*_DOTPROD.mattr, "+i8mm"),
    tiles=replace(_DOTPROD.tiles, gemm_few=(Walk(1),) * 3, gemm_tokens=4),
    kernels=replace(
        _DOTPROD.kernels,
        gemm_few=GemmFew(Dot(1, _REGISTERS, _multiply_unpacking, lambda _, sums: sums, _by_token)),
        gemm=Gemm(Dot(1, _REGISTERS, _multiply_unpacked, lambda _, sums: sums, _by_token)),
    ),
    cpus="Cortex-A510, A710, X2 and newer, Neoverse V1, N2 and V2, Apple M2 and newer",
)
