"""The library for Windows in Windows' onnxruntime, under Wine: `make test-windows`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import pytest
import ziglang

import bitcc
from bitcc import targets

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

FOLDER = "BITCC_WINDOWS_ONNXRUNTIME"
_WINE = ("wine64", "/usr/lib/wine/wine64", "wine")
_HEADERS = Path(ziglang.__file__).parent / "lib" / "libc" / "include" / "any-windows-any"


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs a program of Windows, in a system of this session's own."""
    found = next(filter(None, map(shutil.which, _WINE)), None)
    if found is None:
        pytest.skip("there is no Wine")
    if FOLDER not in os.environ:
        pytest.skip(f"no onnxruntime for Windows: `make test-windows` gets one, or {FOLDER} names its folder")
    system = tmp_path_factory.mktemp("windows") / "wine"

    def run(program: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
        with (folder / "said.txt").open("wb") as said:  # a pipe would be held open by Wine's server
            done = subprocess.run(
                [found, program],
                cwd=folder,
                env=os.environ | {"WINEPREFIX": str(system), "WINEDEBUG": "-all"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                check=False,
            )
        return subprocess.CompletedProcess(done.args, done.returncode, (folder / "said.txt").read_bytes())

    return run


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for two systems, and beside it what runs it on Windows."""
    folder = tmp_path_factory.mktemp("bundle")
    onnx.save(models.build("dynamo", rows="5", opset=20), folder / "model.onnx")
    built = bitcc.compile(
        folder / "model.onnx", folder / "b", targets=["x86-64", "x86-64-windows"], min_weights=0
    )
    assert len(built.packed) == 1
    onnxruntime = Path(os.environ[FOLDER]) / "onnxruntime" / "capi" / "onnxruntime.dll"
    for path in (built.model, built.path / "model.onnx.data", built.library("x86-64-windows"), onnxruntime):
        shutil.copy(path, folder)
    write_x(folder, models.tokens(5))
    _build(folder)
    return folder


def write_x(folder: Path, x: NDArray[Any]) -> None:
    shape = np.array(x.shape, np.int64)
    (folder / "x.bin").write_bytes(shape.tobytes() + x.tobytes())


def _build(folder: Path) -> None:
    """Compile run_layer.c without a runtime: zig's would take minutes."""
    source = Path(__file__).with_name("run_layer.c")
    flags = [
        "-std=c11",
        "-nostdlib",
        "-fno-sanitize=all",
        "-isystem",
        _HEADERS,
        "-Wno-deprecated-non-prototype",
    ]
    entry = ["-Wl,--entry=start", "-Wl,--subsystem,console"]
    command = [
        *(sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-windows-gnu", *flags, *entry, source),
        *("-lapi-ms-win-crt-stdio-l1-1-0", "-lkernel32", "-o", "run_layer.exe"),
    ]
    cache = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "zig"), "ZIG_LOCAL_CACHE_DIR": str(folder / "zig")}
    subprocess.run(command, cwd=folder, env=os.environ | cache, check=True)


@pytest.mark.parametrize("isa", [variant.name for variant in targets.get("x86-64-windows").variants])
def test_windows_computes_what_linux_computes_bit_for_bit(
    wine: Callable[..., subprocess.CompletedProcess[bytes]],
    folder: Path,
    isa: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BITCC_ISA", raising=False)
    x = models.tokens(5)
    (want,) = bitcc.session(folder / "b").run(None, {"x": x})
    (folder / "y.bin").unlink(missing_ok=True)
    done = wine("run_layer.exe", folder, BITCC_ISA=isa)
    if b"cannot run on this CPU" in done.stdout:
        pytest.skip(f"the CPU has no {isa}")
    assert done.returncode == 0, done.stdout
    assert (folder / "y.bin").read_bytes() == np.asarray(want).tobytes()


def test_an_isa_that_does_not_exist_is_an_error_on_windows(
    wine: Callable[..., subprocess.CompletedProcess[bytes]], folder: Path
) -> None:
    done = wine("run_layer.exe", folder, BITCC_ISA="bad")
    assert done.returncode == 1
    assert b"BITCC_ISA=bad is not in this library" in done.stdout
