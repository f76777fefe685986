"""The C++ program of the examples, in onnxruntime for arm64."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from arm64 import environment
from arm64.machine import Machine
from generate import generate

import bitcc

if TYPE_CHECKING:
    from bitcc.bundle import Bundle

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "deploy.cpp"
README = SOURCE.parents[1] / "README.md"
PROMPT, TOKENS = "Raised when ", 12  # so few that `generate` has no repeats to avoid


@pytest.fixture(scope="session")
def runtime(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with onnxruntime's library under the name that programs ask for."""
    release = environment.RELEASES[-1]
    (library,) = (folder / f"onnxruntime-{release}" / "onnxruntime" / "capi").glob("libonnxruntime.so.*")
    link = tmp_path_factory.mktemp("runtime") / "libonnxruntime.so.1"
    link.symlink_to(library)
    return link.parent


def test_the_program_writes_the_same_text(
    folder: Path, runtime: Path, bundle: Bundle, here: Bundle, tmp_path: Path
) -> None:
    flags = environment.cpp_flags(folder)
    if not flags:
        pytest.skip("apt has no libonnxruntime-dev here: nothing to compile a C++ program with")
    command = [
        *(sys.executable, "-m", "ziglang", "c++", *flags, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"),
        *(SOURCE, runtime / "libonnxruntime.so.1", "-o", tmp_path / "deploy"),
    ]
    caches = {f"ZIG_{which}_CACHE_DIR": str(folder / "zig") for which in ("GLOBAL", "LOCAL")}
    subprocess.run(command, env=os.environ | caches, check=True)
    program = (tmp_path / "deploy", bundle.path, PROMPT, str(TOKENS))
    done = Machine(folder, "cortex-a72").run(*program, LD_LIBRARY_PATH=runtime)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == generate(bitcc.session(here), PROMPT.encode(), TOKENS)[0]


def test_the_readme_shows_lines_of_the_program() -> None:
    (shown,) = re.findall(r"```cpp\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    program = SOURCE.read_text(encoding="utf-8")
    for line in filter(None, map(str.strip, shown.splitlines())):
        assert line in program
