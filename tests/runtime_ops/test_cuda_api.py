"""What bitcc declares of NVIDIA's driver API is what NVIDIA's own header says, where there is one."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from bitcc import runtime_ops

OURS = (runtime_ops.include_dir() / "bitcc" / "cuda_api.h").read_text(encoding="ascii")
HOMES = (*(os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ), "/usr/local/cuda")


@pytest.mark.parametrize("change", [None, ("size_t)", "int)"), ("= 115", "= 116")])
def test_functions_and_constants_are_those_of_cuda_h(tmp_path: Path, change: tuple[str, str] | None) -> None:
    include = next((path for home in HOMES if (path := Path(home) / "include" / "cuda.h").exists()), None)
    if include is None:
        pytest.skip("cuda.h is not installed")
    text = OURS if change is None else OURS.replace(*change, 1)
    source = tmp_path / "check.c"
    source.write_text(check(text), encoding="ascii")
    command = ["cc", "-std=c11", "-Wall", "-Werror", f"-I{include.parent}", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (change is None), done.stderr


def check(text: str) -> str:
    """C that compiles if each function has these parameters under its symbol, and each constant its value."""
    found = re.search(r"#define BITCC_CUDA_FUNCTIONS\(F\)\s.*?\n\n", text, re.DOTALL)
    constants = re.findall(r"(CU_\w+) = (\d+)", text)
    assert found
    assert len(constants) > 5
    declared = "#define CHECK(name, symbol, parameters) CUresult(*check_##name) parameters = symbol;\n"
    return (
        "#include <assert.h>\n#include <cuda.h>\n"
        + found.group().replace('"', "")
        + declared
        + "BITCC_CUDA_FUNCTIONS(CHECK)\n"
        + "".join(f'static_assert({name} == {value}, "{name}");\n' for name, value in constants)
        + 'static_assert(sizeof(CUmemPoolProps) == 88, "");\n'
    )
