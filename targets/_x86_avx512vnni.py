"""AVX512-VNNI: `vpdpbusd` adds four products of unsigned and signed bytes to each of 16 rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitcc.targets._activations import Absmax, Quantize
from bitcc.targets._base import Kernels, Tiles, Variant, Walk
from bitcc.targets._finish import Finish
from bitcc.targets._matmul import CRUMBS, VECTOR_BYTES, Dot, Gemm, GemmFew, Gemv, unpack
from bitcc.targets._matmul_float import FloatDot, GemvFloat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.targets._matmul import Accumulators, Block
    from bitcc.targets._matmul_float import FloatBlock
    from bitcc.targets._tir import Register, Tir


def _multiply_in_place(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector; crumb i keeps its place, so that accumulator i counts 4^i times too much.

    |accumulator 3| <= 192 * 128 * 65536 / 4 < 2^31.
    """
    q = [_four_columns(t, block, 0, i) for i in CRUMBS]
    for tile, offset in enumerate(block.w_offsets):
        codes = t.let(block.w.load(offset, "uint8x64"))
        for i in CRUMBS:
            _add(t, accumulators[0][tile][i], t.mask(codes, 3 << 2 * i), q[i])


def _combine(t: Tir, registers: Sequence[Any]) -> Sequence[Any]:
    """The exact quotients of the four accumulators."""
    return [sum((t.shift_right(registers[i], 2 * i) for i in CRUMBS[1:]), registers[0])]


def _multiply_unpacking(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector; each crumb is moved to the bottom once and used for every token."""
    packed = [t.let(block.w.load(offset, "uint16x32")) for offset in block.w_offsets]
    for i in CRUMBS:
        codes = [t.let(t.mask(t.reinterpret("uint8x64", t.shift_right(p, 2 * i)), 3)) for p in packed]
        _multiply_four_columns(t, block, i, codes, accumulators)


def _multiply_unpacked(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector of bytes."""
    for i in CRUMBS:
        codes = [t.let(block.w.load(offset + i * VECTOR_BYTES, "uint8x64")) for offset in block.w_offsets]
        _multiply_four_columns(t, block, i, codes, accumulators)


def _multiply_four_columns(
    t: Tir, block: Block, i: int, codes: Sequence[Any], accumulators: Accumulators
) -> None:
    for token, registers in enumerate(accumulators):
        q = _four_columns(t, block, token, i)
        for tile, code in enumerate(codes):
            _add(t, registers[tile][0], code, q)


def _as_it_is(_t: Tir, registers: Sequence[Any]) -> Sequence[Any]:
    return registers


def _four_columns(t: Tir, block: Block, token: int, i: int) -> Any:
    """Activations 4i .. 4i + 3 of a token, for every row."""
    four = block.q.load(block.q_offsets[token] + 4 * i, "int32")
    return t.let(t.reinterpret("int8x64", t.broadcast(four, 16)))


def _add(t: Tir, accumulator: Any, codes: Any, q: Any) -> None:
    name = "llvm.x86.avx512.vpdpbusd.512"
    accumulator.set(t.intrinsic("int32x16", name, accumulator.get(), codes, q))


def _look_up(t: Tir, block: FloatBlock, sums: Sequence[Sequence[Register]]) -> None:
    """One vector, two columns at a time: their sum, for all 16 pairs of codes, is one register.

    `vpermps` selects by the low four bits of each lane, so that nothing needs to be masked.
    """
    lanes = t.lane_numbers(16)
    first = t.let(t.cast("float32x16", t.mask(lanes, 3)) - t.floats(1, 16))
    second = t.let(t.cast("float32x16", t.shift_right(lanes, 2)) - t.floats(1, 16))
    codes = [t.let(block.w.load(offset, "int32x16")) for offset in block.w_offsets]
    for pair in range(8):  # of crumbs in a lane: two in each of four bytes
        column = pair // 2 + 8 * (pair % 2)
        table = t.let(
            t.multiply_add(
                block.column(t, column + 4, 16), second, block.column(t, column, 16) * first
            )
        )  # fmt: skip
        for tile, code in enumerate(codes):
            selector = t.shift_right(code, 4 * pair)
            products = t.intrinsic("float32x16", "llvm.x86.avx512.permvar.sf.512", table, selector)
            total = sums[tile][pair % 2]
            total.set(total.get() + products)


VARIANT = Variant(
    name="avx512vnni",
    features="BITCC_CPU_AVX512VNNI",
    mcpu="x86-64",
    mattr=("+avx512f", "+avx512bw", "+avx512dq", "+avx512vl", "+avx512vnni"),
    tiles=Tiles(
        gemv=Walk(4, prefetch=1024),
        # 10 tokens are the most whose rows of q LLVM can address without spilling
        gemm_few=(Walk(4, prefetch=1024),) * 5 + (Walk(2, unroll=2, prefetch=1024),) * 4,
        gemm=Walk(4),
        gemm_tokens=6,
        gemv_float=Walk(4, prefetch=1024),
    ),
    kernels=Kernels(
        absmax=Absmax(16),
        quantize=Quantize(16, divide=False),
        quantize_divide=Quantize(16, divide=True),
        gemv=Gemv(Dot(1, ("int32x16",) * 4, _multiply_in_place, _combine)),
        gemm_few=GemmFew(Dot(1, ("int32x16",), _multiply_unpacking, _as_it_is)),
        unpack=unpack,
        gemm=Gemm(Dot(1, ("int32x16",), _multiply_unpacked, _as_it_is)),
        finish=Finish(16, bias_first=False),
        finish_bias_first=Finish(16, bias_first=True),
        gemv_float=GemvFloat(FloatDot(16, 2, _look_up, lambda sums: [sums[0] + sums[1]])),
    ),
)
