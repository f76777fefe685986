"""The portable variant of x86-64: what every CPU has, SSE2. `pmaddwd` adds two 16-bit products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitcc.targets._dot import CRUMBS, VECTOR_BYTES
from bitcc.targets._scalar import QUARTERS, scalar_variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.targets._dot import Accumulators, Block
    from bitcc.targets._tir import Tir

_SHIFT = 6  # the accumulators count 4^3 times too much


def _multiply_in_place(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector, whose crumbs keep their places.

    Crumb i counts 4^i times too much, and its activation is made 4^(3-i) times larger, at most
    128 * 64 = 2^13. So all products count 64 times: |accumulator| <= 64 * 3 * 128 * 65536 < 2^31.
    """
    for tile, offset in enumerate(block.w_offsets):
        even = [t.let(block.w.load(offset + 16 * r, "uint16x8")) for r in QUARTERS]
        odd = [t.let(t.shift_right(quarter, 8)) for quarter in even]
        for token, registers in enumerate(accumulators):
            for i in CRUMBS:
                q_even, q_odd = _four_columns(t, block, token, i, 2 * (3 - i))
                for r in QUARTERS:
                    _add(t, registers[tile][r], t.mask(even[r], 3 << 2 * i), q_even)
                    _add(t, registers[tile][r], t.mask(odd[r], 3 << 2 * i), q_odd)


def _multiply_unpacked(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector of bytes."""
    for tile, offset in enumerate(block.w_offsets):
        for i in CRUMBS:
            first = offset + i * VECTOR_BYTES
            quarters = [t.let(block.w.load(first + 16 * r, "uint16x8")) for r in QUARTERS]
            for token, registers in enumerate(accumulators):
                q_even, q_odd = _four_columns(t, block, token, i, 0)
                for r in QUARTERS:
                    _add(t, registers[tile][r], t.mask(quarters[r], 0xFF), q_even)
                    _add(t, registers[tile][r], t.shift_right(quarters[r], 8), q_odd)


def _four_columns(t: Tir, block: Block, token: int, i: int, up: int) -> tuple[Any, Any]:
    """2^up times the activations 4i, 4i + 2 and 4i + 1, 4i + 3 of a token, for every row."""
    four = block.q.load(block.q_offsets[token] + 4 * i, "int32")
    lanes = t.let(t.reinterpret("int16x8", t.broadcast(four, 4)))
    # the byte in the upper half of a lane is 2^8 times too large
    even = t.shift_right(t.shift_left(lanes, 8), 8 - up)
    odd = t.shift_right(t.mask(lanes, -256), 8 - up)
    return t.let(even), t.let(odd)


def _add(t: Tir, accumulator: Any, codes: Any, q: Any) -> None:
    pairs = t.intrinsic("int32x4", "llvm.x86.sse2.pmadd.wd", t.reinterpret("int16x8", codes), q)
    accumulator.set(accumulator.get() + pairs)


def _total(t: Tir, registers: Sequence[Any]) -> Sequence[Any]:
    return [t.shift_right(register, _SHIFT) for register in registers]


VARIANT = scalar_variant(
    mcpu="x86-64",
    few_tokens=4,
    gemm_tokens=4,
    packed=_multiply_in_place,
    unpacked=_multiply_unpacked,
    total=_total,
    cpus="any other x86-64",
)
