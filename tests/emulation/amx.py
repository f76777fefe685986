"""The AMX kernels where there is no AMX: TIR that calls `amx.c` for each tile instruction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as builder

from bitcc import targets
from bitcc.targets import _x86_amx, _x86_scalar

SOURCE = Path(__file__).with_suffix(".c")


def call(_t: Any, name: str, *operands: Any) -> None:
    """In place of an instruction of the CPU."""
    builder.evaluate(tirx.call_extern("void", f"emulated_{name}", *operands))


_AMX, _SCALAR = _x86_amx.VARIANT, _x86_scalar.VARIANT

EMULATED = replace(
    targets.get("x86-64"),
    variants=(
        replace(
            _SCALAR,
            name="amx_emulated",
            tiles=replace(
                _SCALAR.tiles,
                gemm=_AMX.tiles.gemm,
                gemm_tokens=_AMX.tiles.gemm_tokens,
                gemm_unit=_AMX.tiles.gemm_unit,
                panel_tiles=_AMX.tiles.panel_tiles,
                panel_vectors=_AMX.tiles.panel_vectors,
                few_blocks=_AMX.tiles.few_blocks,
            ),
            kernels=replace(
                _SCALAR.kernels,
                gemm=replace(_AMX.kernels.gemm, instruction=call),
                gemm_begin=replace(_AMX.kernels.gemm_begin, instruction=call),
                gemm_end=replace(_AMX.kernels.gemm_end, instruction=call),
            ),
        ),
    ),
)
"""Everything but `gemm` is the portable code, so that it runs on any x86-64."""
