"""The kernel library that is built here, what it needs, and where it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime as ort

from bitcc import libraries, nvidia, runtime, runtime_ops, targets
from bitcc.doctor.check import Check
from bitcc.errors import BitccError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitcc.runtime_ops import LibraryInfo
    from bitcc.targets import Target


def check(target: str | None) -> None:
    """Whether ``look`` could begin.

    Raises:
        TargetError: there is no such target.
    """
    if target is not None:
        targets.get(target)


def look(target: str | None, say: Callable[[str], None]) -> list[Check]:
    """At the library of a target, or at that of this machine."""
    checks = _library(say) if target is None else _library_for(target, targets.get(target), say)
    return [*checks, _cache()]


def _library(say: Callable[[str], None]) -> list[Check]:
    try:
        path = libraries.library_path(progress=say)
        info = runtime_ops.library_info(path)
    except BitccError as error:
        return [Check("kernel library", ok=False, detail=str(error), hint=error.hint)]
    formats = ", ".join(f"{name} version {number}" for name, number in info.weight_formats.items())
    return [
        Check(
            "kernel library", ok=True, detail=f"{path} ({path.stat().st_size >> 10} KB; weights {formats})"
        ),
        _kernels(info),
    ]


def _library_for(name: str, target: Target, say: Callable[[str], None]) -> list[Check]:
    """Of a target that may be another machine's: what its library would take there."""
    for_gpus = _cuda(target) if target.gpus else []
    try:
        path = libraries.library_path(name, say)
    except BitccError as error:
        return [*for_gpus, Check("kernel library", ok=False, detail=str(error), hint=error.hint)]
    return [
        *for_gpus,
        Check("kernel library", ok=True, detail=f"{path} ({path.stat().st_size >> 10} KB; {target.needs})"),
        *(Check(f"kernels {v.name}", ok=True, detail=v.cpus) for v in target.variants),
        Check("tested", ok=True, detail=target.proof),
    ]


def _cuda(target: Target) -> list[Check]:
    """What compiles for GPUs, and what would run that; a machine that only builds needs no GPU."""
    compiler = targets.cuda_compiler()
    built = Check("CUDA compiler", bool(compiler), compiler or "not installed", targets.CUDA_COMPILER_HINT)
    code = Check("kernels for GPUs", ok=True, detail=", ".join(target.gpu_code))
    found = nvidia.look()
    driver = f"driver for CUDA {found.cuda} or older" if found.cuda else ""
    device = Check("GPU", ok=True, detail="; ".join(filter(None, [*found.names, found.problem, driver])))
    there = runtime.CUDA in ort.get_available_providers()
    words = f"has {runtime.CUDA}" if there else f"has no {runtime.CUDA}; onnxruntime-gpu has it"
    return [built, code, device, Check("onnxruntime and CUDA", ok=True, detail=words)]


def _cache() -> Check:
    try:
        used = targets.usage()
    except BitccError as error:
        return Check("cache", ok=False, detail=str(error), hint=error.hint)
    count = "1 library" if used.libraries == 1 else f"{used.libraries} libraries"
    detail = f"{used.folder} ({count}, {used.bytes >> 20} MB; may be deleted)"
    return Check("cache", ok=True, detail=detail)


def _kernels(info: LibraryInfo) -> Check:
    try:
        selected = runtime.check_kernels(info)
    except BitccError as error:
        return Check("kernels", ok=False, detail=str(error), hint=error.hint)
    detail = f"{selected} of {', '.join(info.variants)}"
    variants = targets.get(libraries.host_target()).variants
    detail += "".join(f"; {v.name}: {v.note}" for v in variants if v.note and v.name == selected)
    for isa, kernel in info.wrong.items():
        detail += f"; kernel `{kernel}` of {isa} computes wrong numbers here"
    return Check("kernels", ok=not info.wrong, detail=detail, hint="please report this")
