"""AVX-512 as AMD's Zen 5 executes it: the instructions of AVX512-VBMI, in other walks.

Measured on a Zen 5 server: memory comes fastest in one stream, where Intel's cores want four. And codes are
unpacked in execution units that `vpdpbusd` has no use for, so that it never pays to write them down.
"""

from __future__ import annotations

from dataclasses import replace

from bitcc.targets import _x86_avx512vbmi
from bitcc.targets._base import Walk

_VBMI = _x86_avx512vbmi.VARIANT

VARIANT = replace(
    _VBMI,
    name="avx512zen",
    features=f"{_VBMI.features} | BITCC_CPU_ZEN5",
    tiles=replace(
        _VBMI.tiles,
        gemv=Walk(1, prefetch=4096, chains=2),
        gemv_t5=Walk(1, prefetch=6144, chains=3),
        few_blocks=16,
    ),
    cpus="Zen 5 and newer",
)
