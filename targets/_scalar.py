"""What the portable variants share: vectors of four lanes, no instruction that every CPU does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitcc.targets._activations import Absmax, Quantize
from bitcc.targets._base import Kernels, Tiles, Variant, Walk
from bitcc.targets._dot import Dot
from bitcc.targets._finish import Finish
from bitcc.targets._gemv_float_table import gemv_float_by_table
from bitcc.targets._matmul import Gemm, GemmFew, Gemv, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from bitcc.targets._dot import Accumulators, Block
    from bitcc.targets._tir import Tir

    Multiply = Callable[[Tir, Block, Accumulators], None]
    Total = Callable[[Tir, Sequence[Any]], Sequence[Any]]

QUARTERS = range(4)
"""Of a vector, 16 bytes each: four rows."""

_LANES = 4
_REGISTERS = ("int32x4",) * len(QUARTERS)


def _as_they_are(_: Tir, sums: Sequence[Any]) -> Sequence[Any]:
    return sums


def scalar_variant(
    *,
    mcpu: str,
    few_tokens: int,
    gemm_tokens: int,
    packed: Multiply,
    unpacked: Multiply,
    total: Total = _as_they_are,
    cpus: str,
) -> Variant:
    """The variant ``scalar`` of an architecture.

    Args:
        mcpu: LLVM's name of the oldest CPU that runs it.
        few_tokens: That are taken together with packed weights.
        gemm_tokens: With unpacked ones.
        packed: Multiplies a vector of packed weights.
        unpacked: Multiplies a vector of bytes.
        total: Makes the sums of what ``packed`` accumulates.
        cpus: For whom it is, in words.
    """
    in_place = Dot(1, _REGISTERS, packed, total)
    return Variant(
        name="scalar",
        features="0",
        mcpu=mcpu,
        mattr=(),
        tiles=Tiles(
            gemv=Walk(1),
            gemm_few=(Walk(1),) * (few_tokens - 1),
            gemm=Walk(1),
            gemm_tokens=gemm_tokens,
            gemv_float=Walk(32, prefetch=256),
        ),
        kernels=Kernels(
            absmax=Absmax(_LANES),
            quantize=Quantize(_LANES, divide=False),
            quantize_divide=Quantize(_LANES, divide=True),
            gemv=Gemv(in_place),
            gemm_few=GemmFew(in_place),
            unpack=unpack,
            gemm=Gemm(Dot(1, _REGISTERS, unpacked, _as_they_are)),
            finish=Finish(_LANES, bias_first=False),
            finish_bias_first=Finish(_LANES, bias_first=True),
            gemv_float=gemv_float_by_table,
        ),
        cpus=cpus,
    )
