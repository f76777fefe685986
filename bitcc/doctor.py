"""What this machine has, which kernels it would run, and whether the toolchain is fine."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import onnxruntime as ort

from bitcc import host, libraries, nvidia, runtime, runtime_ops, targets
from bitcc.errors import BitccError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitcc.runtime_ops import LibraryInfo
    from bitcc.targets import Target

_PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "numpy", "apache-tvm", "apache-tvm-ffi", "ziglang")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        ok: Whether it is fine.
        detail: What was found.
        hint: What to do if it is not fine.
    """

    name: str
    ok: bool
    detail: str
    hint: str = ""


def examine(progress: Callable[[str], None] | None = None, target: str | None = None) -> list[Check]:
    """Look at everything; a failure of one thing does not stop the others.

    Args:
        progress: Called with a few words when a step starts.
        target: Build its library and say which kernels it takes on which CPU; None to ask the library of
            this machine what it takes here.

    Raises:
        TargetError: there is no such target.
    """
    say = progress or (lambda _: None)
    asked = targets.get(target) if target else None
    say("machine")
    checks = [
        Check(
            "machine",
            ok=True,
            detail=f"{platform.system()} {platform.machine()}, {host.cpu_name()}, {os.cpu_count()} CPUs",
        ),
        Check("python", sys.version_info >= (3, 10), platform.python_version(), "use Python 3.10 or newer"),
    ]
    checks += [_package(name) for name in _PACKAGES]
    say("code generator")
    checks.append(_import("tvm", "reinstall bitcc: it pins the tvm packages that work together"))
    say("C compiler")
    checks.append(_zig())
    say("kernel library")
    checks += _library(say) if target is None or asked is None else _library_for(target, asked, say)
    checks.append(_cache())
    return checks


def _package(name: str) -> Check:
    try:
        return Check(name, ok=True, detail=version(name))
    except PackageNotFoundError:
        return Check(name, ok=False, detail="not installed", hint="pip install --force-reinstall bitcc")


def _import(module: str, hint: str) -> Check:
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - a broken package raises anything
        return Check(f"import {module}", ok=False, detail=f"{type(error).__name__}: {error}", hint=hint)
    return Check(f"import {module}", ok=True, detail="works")


def _zig() -> Check:
    command = [sys.executable, "-m", "ziglang", "version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    good = done.returncode == 0
    text = (done.stdout if good else done.stderr).strip().splitlines()
    return Check("zig", good, text[-1] if text else "no output", "pip install --force-reinstall ziglang")


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
    detail = f"{used.folder} ({used.libraries} libraries, {used.bytes >> 20} MB; may be deleted)"
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
