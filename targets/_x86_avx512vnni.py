"""AVX512-VNNI: `vpdpbusd` on vectors of 64 bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitcc.targets._activations import Absmax, Quantize
from bitcc.targets._base import Kernels, Tiles, Variant, Walk
from bitcc.targets._finish import Finish
from bitcc.targets._matmul import Gemm, GemmFew, Gemv, unpack
from bitcc.targets._matmul_float import FloatDot, GemvFloat
from bitcc.targets._x86_vnni import Vnni

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.targets._matmul_float import FloatBlock
    from bitcc.targets._tir import Register, Tir


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


_DOT = Vnni(16)

VARIANT = Variant(
    name="avx512vnni",
    features="BITCC_CPU_AVX512VNNI",
    mcpu="x86-64",
    mattr=("+avx512f", "+avx512bw", "+avx512dq", "+avx512vl", "+avx512vnni"),
    tiles=Tiles(
        gemv=Walk(4, prefetch=2048),
        # of 2 to 10 tokens, so that nothing is spilled: with more, or with prefetches for 5, LLVM needs more
        # addresses than there are registers for them
        gemm_few=(
            *(Walk(4, prefetch=1024),) * 3,
            Walk(4, unroll=2),
            *(Walk(2, unroll=2, prefetch=2048),) * 4,
            Walk(2),
        ),
        gemm=Walk(4),
        gemm_tokens=6,
        gemv_float=Walk(4, prefetch=1024),
    ),
    kernels=Kernels(
        absmax=Absmax(16),
        quantize=Quantize(16, divide=False),
        quantize_divide=Quantize(16, divide=True),
        gemv=Gemv(_DOT.in_place),
        gemm_few=GemmFew(_DOT.unpacking),
        unpack=unpack,
        gemm=Gemm(_DOT.unpacked),
        finish=Finish(16, bias_first=False),
        finish_bias_first=Finish(16, bias_first=True),
        gemv_float=GemvFloat(FloatDot(16, 2, _look_up, lambda sums: [sums[0] + sums[1]])),
    ),
    cpus="Ice Lake, Tiger Lake, Zen 4 and newer",
)
