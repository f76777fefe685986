"""AVX-VNNI: `vpdpbusd` on vectors of 32 bytes; everything else is as on AVX2."""

from __future__ import annotations

from dataclasses import replace

from bitcc.targets import _x86_avx2
from bitcc.targets._base import Variant, Walk
from bitcc.targets._matmul import Gemm, GemmFew, Gemv
from bitcc.targets._x86_vnni import Vnni

_DOT = Vnni(8)
_AVX2 = _x86_avx2.VARIANT

VARIANT = Variant(
    name="avxvnni",
    features=f"{_AVX2.features} | BITCC_CPU_AVXVNNI",
    mcpu=_AVX2.mcpu,
    mattr=(*_AVX2.mattr, "+avxvnni"),
    tiles=replace(
        _AVX2.tiles,
        gemm_few=(Walk(2, prefetch=1024),) + (Walk(1),) * 3,
        gemm_tokens=6,
    ),
    kernels=replace(
        _AVX2.kernels,
        # in place it would take 32 accumulators for four tiles, twice the registers that there are
        gemv=Gemv(_DOT.unpacking),
        gemm_few=GemmFew(_DOT.unpacking),
        gemm=Gemm(_DOT.unpacked),
    ),
    cpus="Alder Lake and newer without AVX-512",
)
