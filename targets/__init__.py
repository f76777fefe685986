"""Targets: for which platforms the op library can be built, and how its kernels are made by TVM.

To add a platform, write one file with a `TARGET` and name it in `TARGETS`. To add an instruction
set, write one file with a `VARIANT` and name it in its target. Tests, benchmarks and the library
take it from there.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from bitcc.errors import TargetError
from bitcc.targets import (
    _cuda_compiler,
    arm64,
    arm64_android,
    arm64_macos,
    cuda,
    x86_64,
    x86_64_macos,
    x86_64_windows,
)
from bitcc.targets._base import Kernels, Target, Tiles, Variant, Walk
from bitcc.targets._build import build_library, check_tools
from bitcc.targets._cache import Usage, usage
from bitcc.targets._cuda_compiler import HINT as CUDA_COMPILER_HINT
from bitcc.targets._tiles import MARK as TILE_FILE_MARK
from bitcc.targets._tiles import TileFile, read_tiles
from bitcc.targets._tuned import Change, Remote, tune_variant

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CUDA_COMPILER_HINT",
    "TARGETS",
    "TILE_FILE_MARK",
    "Change",
    "Kernels",
    "Remote",
    "Target",
    "TileFile",
    "Tiles",
    "Usage",
    "Variant",
    "Walk",
    "build_library",
    "check_tools",
    "cuda_compiler",
    "get",
    "of_machine",
    "read_tiles",
    "tune_variant",
    "usage",
]

TARGETS: Mapping[str, Target] = MappingProxyType({
    target.name: target
    for target in (
        x86_64.TARGET,
        x86_64_windows.TARGET,
        x86_64_macos.TARGET,
        arm64.TARGET,
        arm64_macos.TARGET,
        arm64_android.TARGET,
        cuda.TARGET,
    )
})  # fmt: skip


def of_machine(system: str, machine: str) -> tuple[Target, ...]:
    """The targets for what `sys.platform` and `platform.machine()` say; the first one needs no GPU."""
    return tuple(t for t in TARGETS.values() if t.system == system and machine in t.machines)


def cuda_compiler() -> str:
    """Which compiler would make kernels for GPUs, such as ``nvcc 13.0.88``; empty if there is none."""
    compiler = _cuda_compiler.find()
    return compiler.version if compiler else ""


def get(name: str) -> Target:
    """The target called `name`; ``cuda:sm_80`` is `cuda` for that GPU alone.

    Raises:
        TargetError: there is none; the hint names those that are.
    """
    base, colon, gpus = name.partition(":")
    if colon and base == cuda.TARGET.name:
        return cuda.only(gpus)
    if name not in TARGETS:
        known = ", ".join(f"`{target}`" for target in TARGETS)
        raise TargetError(f"there is no target `{name}`", hint=f"choose one of {known}")
    return TARGETS[name]
