"""What this machine has, which kernels it would run, and whether the toolchain is fine.

What is missing must not stop it: this file needs nothing that has to be installed.
"""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from bitcc import host
from bitcc.doctor.check import Check

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Check", "examine"]

PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "numpy", "apache-tvm", "apache-tvm-ffi", "ziglang")
_REINSTALL = "pip install --force-reinstall bitcc"


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
    say("machine")
    checks = [
        Check(
            "machine",
            ok=True,
            detail=f"{platform.system()} {platform.machine()}, {host.cpu_name()}, {os.cpu_count()} CPUs",
        ),
        Check("python", sys.version_info >= (3, 10), platform.python_version(), "use Python 3.10 or newer"),
    ]
    checks += [_package(name) for name in PACKAGES]
    try:
        from bitcc.doctor import kernels  # noqa: PLC0415 - packages may be missing, and are told of above
    except ImportError as error:
        return [*checks, Check("import bitcc", ok=False, detail=str(error), hint=_REINSTALL)]
    kernels.check(target)
    say("code generator")
    checks.append(_import("tvm", "reinstall bitcc: it pins the tvm packages that work together"))
    say("C compiler")
    checks.append(_zig())
    say("kernel library")
    return checks + kernels.look(target, say)


def _package(name: str) -> Check:
    try:
        return Check(name, ok=True, detail=version(name))
    except PackageNotFoundError:
        return Check(name, ok=False, detail="not installed", hint=_REINSTALL)


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
