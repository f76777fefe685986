"""The library for glibc is the one for musl too."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bitcc import libraries, runtime_ops

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.skipif(libraries.host_target() != "x86-64", reason="for x86-64")
def test_a_program_of_musl_loads_it_and_its_self_test_passes(
    library: Callable[[str], Path], tmp_path: Path
) -> None:
    compiler = shutil.which("musl-gcc")
    if compiler is None:
        pytest.skip("there is no musl-gcc (on Debian in musl-tools)")
    program, source = tmp_path / "self_test", Path(__file__).with_name("self_test.c")
    command = [compiler, "-std=c11", f"-I{runtime_ops.include_dir()}", source, "-o", program]
    subprocess.run(command, check=True)
    for isa in ("", "scalar"):
        done = subprocess.run(
            [program, library("x86-64")], env={"BITCC_ISA": isa}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        info, *ops = done.stdout.splitlines()
        assert json.loads(info)["selected"] == isa or not isa
        assert ops == ["bitcc::BitLinear"] * 3 + ["bitcc::TernaryLinear"] * 3
