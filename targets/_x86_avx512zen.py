"""AVX-512 as AMD's Zen 5 executes it: the instructions of AVX512-VBMI, in other walks, and products of pairs.

Measured on a Zen 5 server: memory comes fastest in one stream, where Intel's cores want four. And codes are
unpacked, and bytes added, in execution units that `vpdpbusd` has no use for, so that it never pays to write
unpacked weights down, and that an addition is cheaper than a multiplication. Weights are asked for ahead
with 2 to 12 tokens, but for 11 in `gemm_few`: from memory that is up to 1.9 times as fast. With 6 and 7 of
`t5`, LLVM has few registers left for the addresses: it costs 5 percent from the cache.
"""

from __future__ import annotations

from dataclasses import replace

from bitcc.targets import _x86_avx512vbmi
from bitcc.targets._base import Walk
from bitcc.targets._matmul import GemmPairs
from bitcc.targets._pairs import add_column, pair
from bitcc.targets._x86_vnni import Vnni

_VBMI = _x86_avx512vbmi.VARIANT

VARIANT = replace(
    _VBMI,
    name="avx512zen",
    features=f"{_VBMI.features} | BITCC_CPU_ZEN5",
    tiles=replace(
        _VBMI.tiles,
        gemv=Walk(1, prefetch=4096, chains=2),
        gemv_t5=Walk(1, prefetch=6144, chains=3),
        # of 2 to 12 tokens; with 11 it would cost a quarter of the speed from the cache
        gemm_few=(
            *(Walk(4, prefetch=1024),) * 3,
            Walk(4, unroll=2, prefetch=1024),
            *(Walk(2, unroll=2, prefetch=2048),) * 4,
            Walk(2, prefetch=2048),
            Walk(2, unroll=2),
            Walk(2, prefetch=2048),
        ),
        few_blocks=16,
        # of 2 to 12 tokens
        gemm_pairs=(
            *(Walk(4, prefetch=1024),) * 3,
            Walk(4, unroll=2, prefetch=2048),
            *(Walk(2, prefetch=2048),) * 6,
            Walk(2, unroll=2, prefetch=2048),
        ),
    ),
    kernels=replace(
        _VBMI.kernels,
        gemm_few_t5=_x86_avx512vbmi.gemm_few_t5(
            *(Walk(4, prefetch=1024),) * 4,
            *(Walk(3, prefetch=1024),) * 2,
            *(Walk(2, prefetch=2048),) * 5,
        ),
        pair=pair,
        add_column=add_column,
        repack_t5=_x86_avx512vbmi.repack_t5,
        gemm_pairs=GemmPairs(Vnni(16, gfni=True).pairs),
    ),
    cpus="Zen 5 and newer",
)
