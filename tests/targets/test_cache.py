"""The cache of libraries: hits, damage, and several processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bitcc import targets
from bitcc.errors import TargetError
from bitcc.targets import _cache
from bitcc.targets._base import Shim

if TYPE_CHECKING:
    from collections.abc import Callable

X86_64 = targets.get("x86-64")
TARGET = replace(X86_64, variants=X86_64.variants[-2:])  # all six take ten times as long
STUB = Path(__file__).parent / "stub.c"
RUNTIME_OPS = STUB.parents[2] / "runtime_ops"
SOURCES = (STUB, RUNTIME_OPS / "src" / "variants.c")
INCLUDE = RUNTIME_OPS / "include"
BUILD = f"""
import sys
from dataclasses import replace
from pathlib import Path
from bitcc import targets
x86_64 = targets.get("x86-64")
print(targets.build_library(
    replace(x86_64, variants=x86_64.variants[-2:]),
    sources=list(map(Path, {[str(path) for path in SOURCES]})), include=Path({str(INCLUDE)!r}),
    version=sys.argv[1],
))
print("tvm" in sys.modules)
"""


@pytest.fixture
def shim(tmp_path: Path) -> Shim:
    """Copies that a test may change."""
    shutil.copytree(INCLUDE, tmp_path / "include")
    source = tmp_path / "stub.c"
    shutil.copy(STUB, source)
    (tmp_path / "beside.h").write_text("/* may be included */\n")
    return Shim((source,), tmp_path / "include", "1")


def start(version: str) -> subprocess.Popen[str]:
    """Build the stub library in another process."""
    return subprocess.Popen([sys.executable, "-c", BUILD, version], stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Path of the library and whether tvm was imported."""
    output, _ = process.communicate()
    assert process.returncode == 0
    return output.split()


def test_a_second_build_finds_the_first_and_does_without_tvm(build: Callable[..., Path]) -> None:
    library = build(TARGET)
    assert finish(start("1")) == [str(library), "False"]


def test_progress_names_the_steps_of_a_build_and_is_silent_on_a_hit(
    build: Callable[..., Path],
) -> None:
    steps: list[str] = []
    build(TARGET, version="progress", progress=steps.append)
    assert steps[0] == "avx2: absmax"
    assert "scalar: gemm" in steps
    assert steps[-1] == "linking"
    steps.clear()
    build(TARGET, version="progress", progress=steps.append)
    assert not steps


def test_the_same_input_gives_the_same_bytes(build: Callable[..., Path]) -> None:
    # the stub does not contain its version, and a library is stored by its content
    library, _ = finish(start("the same"))
    assert library == str(build(TARGET))


def test_two_processes_build_at_once(build: Callable[..., Path]) -> None:
    both = [start("at once"), start("at once")]
    libraries = {finish(process)[0] for process in both}
    assert libraries == {str(build(TARGET))}


@pytest.mark.parametrize("damage", [b"", b"\x7fELF"])
def test_a_damaged_library_is_built_again(build: Callable[..., Path], damage: bytes) -> None:
    intact = build(TARGET).read_bytes()
    build(TARGET).write_bytes(damage)
    assert build(TARGET).read_bytes() == intact


@pytest.mark.parametrize("damage", [b"", b"\xff", b"../..", b"0" * 64])
def test_a_damaged_record_is_written_again(build: Callable[..., Path], cache: Path, damage: bytes) -> None:
    library = build(TARGET)
    entry = _cache.key(TARGET, Shim(SOURCES, INCLUDE, "1"))
    record = cache / "libraries" / f"{entry}.sha256"
    intact = record.read_bytes()
    record.write_bytes(damage)
    assert build(TARGET) == library
    assert record.read_bytes() == intact


def test_nothing_is_left_of_a_build(build: Callable[..., Path], cache: Path) -> None:
    build(TARGET)
    assert not list(cache.glob("build-*"))


def test_a_build_removes_what_nobody_asked_for_in_a_month(build: Callable[..., Path], cache: Path) -> None:
    build(TARGET)
    libraries = cache / "libraries"
    unused = [libraries / ("0" * 64), cache / "build-killed", libraries / f"{'0' * 64}.sha256"]
    for folder in unused[:2]:
        folder.mkdir()
        (folder / "file").touch()
    unused[2].touch()
    going_on = cache / "build-going-on"
    going_on.mkdir()
    month = time.time() - 31 * 24 * 3600
    for path in (*libraries.iterdir(), *unused):
        os.utime(path, (month, month))
    used = build(TARGET)  # a hit
    assert all(path.exists() for path in unused)
    build(TARGET, version="a month later")
    assert not any(path.exists() for path in unused)
    assert going_on.exists()
    assert used.exists()
    steps: list[str] = []
    assert build(TARGET, progress=steps.append) == used
    assert not steps


def test_builds_do_not_fill_the_cache_of_the_compiler(build: Callable[..., Path], cache: Path) -> None:
    build(TARGET)
    before = sum(1 for _ in (cache / "zig").rglob("*"))
    build(TARGET, version="more of them")
    assert sum(1 for _ in (cache / "zig").rglob("*")) == before


def append(path: Path) -> None:
    path.write_text(path.read_text() + "\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda shim: append(shim.sources[0]),
        lambda shim: append(shim.sources[0].parent / "beside.h"),
        lambda shim: append(shim.include / "bitcc" / "kernel.h"),
    ],
    ids=["source", "header beside it", "kernel.h"],
)
def test_the_key_follows_the_c_files(shim: Shim, change: Callable[[Shim], None]) -> None:
    before = _cache.key(TARGET, shim)
    assert _cache.key(TARGET, shim) == before
    change(shim)
    assert _cache.key(TARGET, shim) != before


def test_the_key_follows_version_and_target(shim: Shim) -> None:
    first, *others = X86_64.variants
    retuned = replace(first, tiles=replace(first.tiles, gemm_tokens=4))
    rewritten = replace(first, kernels=others[0].kernels)
    keys = {
        _cache.key(X86_64, shim),
        _cache.key(X86_64, replace(shim, version="2")),
        _cache.key(replace(X86_64, variants=tuple(others)), shim),
        _cache.key(replace(X86_64, variants=(retuned, *others)), shim),
        _cache.key(replace(X86_64, variants=(rewritten, *others)), shim),
        _cache.key(replace(X86_64, zig_triple="x86_64-linux-musl"), shim),
    }
    assert len(keys) == 6


@pytest.mark.parametrize("name", ["_tir.py", "cuda_device.h"])
def test_the_key_follows_the_code_generator(
    shim: Shim, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _cache.key(TARGET, shim)
    folder = Path(_cache.__file__).parent
    shutil.copytree(folder, tmp_path / "targets", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_cache, "__file__", str(tmp_path / "targets" / "_cache.py"))
    assert _cache.key(TARGET, shim) == before
    append(tmp_path / "targets" / name)
    assert _cache.key(TARGET, shim) != before


def test_the_key_follows_the_tools(shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _cache.key(TARGET, shim)
    monkeypatch.setattr(_cache, "installed", lambda _: "0.0")
    assert _cache.key(TARGET, shim) != before


def test_a_missing_tool_is_named(shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cache, "_TOOLS", ("no-such-tool",))
    with pytest.raises(TargetError, match="`no-such-tool` is not installed") as raised:
        _cache.key(TARGET, shim)
    assert raised.value.hint.startswith("pip install --force-reinstall bitcc: ")


def test_a_missing_source_is_named(shim: Shim) -> None:
    with pytest.raises(TargetError, match=r"`.*gone\.c` cannot be read: No such file"):
        _cache.key(TARGET, replace(shim, sources=(shim.include / "gone.c",)))


def test_what_is_used_is_counted_while_builds_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Their files are there when they are listed, and gone when they are looked at."""
    monkeypatch.setenv("BITCC_CACHE_DIR", str(tmp_path))
    (tmp_path / "kept").write_bytes(b"x" * 100)
    (tmp_path / "gone").touch()
    known = Path.stat

    def stat(self: Path, **more: Any) -> os.stat_result:
        if self.name == "gone":
            raise FileNotFoundError(self)
        return known(self, **more)

    monkeypatch.setattr(Path, "is_file", lambda _: True)
    monkeypatch.setattr(Path, "stat", stat)
    assert targets.usage().bytes == 100


def test_a_cache_folder_that_cannot_be_made_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Callable[..., Any]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BITCC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(TargetError, match=r"cache` cannot be made: Not a directory") as raised:
        build(TARGET)
    assert raised.value.hint == "set BITCC_CACHE_DIR to a folder that you may write to"
