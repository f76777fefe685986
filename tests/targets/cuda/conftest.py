"""The CUDA kernels on the host: compiled as C++ against `emulation.h`, called on numpy arrays."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitcc.targets import _cuda, _cuda_codegen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

ASCENDING, DESCENDING, DRAWN = range(3)
_HERE = Path(__file__).parent
_HALF = _HERE.parents[2] / "runtime_ops" / "src"
_TURING = _HERE.parents[2] / "targets"
_FLAGS = (
    "-x", "c++", "-std=c++20", "-O1", "-shared", "-fPIC", "-fno-exceptions", "-fno-rtti", "-nostdlib++",
    "-ffp-contract=off", "-fno-strict-aliasing", "-w",
    "-fsanitize=alignment,bounds", "-fsanitize-trap=alignment,bounds",
)  # fmt: skip
_C = {"int32": ctypes.c_int32, "float32": ctypes.c_float}
_FAILURES = ("", "threads of a warp diverge where it exchanges values", "threads wait at different barriers")


@dataclass(frozen=True)
class Emulated:
    """The kernels on the host.

    Attributes:
        library: Has a function run_<symbol> for each.
        barriers: The numbers of those in each kernel.
        buffer: Makes memory that ends before a page that cannot be read or written.
    """

    library: ctypes.CDLL
    barriers: dict[str, range]
    buffer: Any

    def launch(
        self, kernel: _cuda.Kernel, blocks: tuple[int, int], order: int = ASCENDING, without: int = -1,
        **arguments: Array | float,
    ) -> dict[str, Array]:  # fmt: skip
        """Run a grid; the arrays come back as they are then.

        Raises:
            AssertionError: the threads of a block did what they may not.
        """
        memory = {
            name: self.buffer(value, 0) for name, value in arguments.items() if isinstance(value, np.ndarray)
        }
        values = [
            ctypes.c_void_p(memory[name].address) if name in memory else _C[kind](arguments[name])
            for name, kind in kernel.parameters.items()
        ]
        failure = getattr(self.library, f"run_{kernel.symbol}")(
            *blocks, kernel.threads, order, without, *values
        )
        assert not failure, _FAILURES[failure]
        return {name: memory[name].read(arguments[name].dtype) for name in memory}


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory, buffer: Any) -> Emulated:
    """All kernels, compiled for the host."""
    if sys.platform != "linux":
        pytest.skip("coroutines are made with ucontext, as Linux has it")
    folder = tmp_path_factory.mktemp("cuda")
    bodies = _cuda_codegen.bodies(_cuda.KERNELS)
    code, library = folder / "kernels.cpp", folder / "kernels.so"
    runs = "".join(_run(kernel) for kernel in _cuda.KERNELS)
    code.write_text(f'#include "emulation.h"\n{bodies}\n{runs}', encoding="ascii")
    includes = [f"-I{path}" for path in (_HERE, _HALF, _TURING)]
    command = [sys.executable, "-m", "ziglang", "cc", *_FLAGS, *includes, str(code), "-lm"]
    subprocess.run([*command, "-o", str(library)], check=True)
    return Emulated(ctypes.CDLL(os.fspath(library)), _barriers(bodies), buffer)


def _run(kernel: _cuda.Kernel) -> str:
    types = {"int32": "int", "float32": "float", "uint16": "ushort"}
    arguments = "".join(
        f", {types[kind.rstrip('*')]} {'*' * kind.count('*')}{name}"
        for name, kind in kernel.parameters.items()
    )
    call = f"{kernel.symbol}({', '.join(kernel.parameters)})"
    names = ("grid_x", "grid_y", "block_threads", "order", "without")
    return (
        f'extern "C" int run_{kernel.symbol}({", ".join(f"int {name}" for name in names)}{arguments}) '
        f"{{ return launch([&] {{ {call}; }}, {', '.join(names)}); }}\n"
    )


def _barriers(bodies: str) -> dict[str, range]:
    """The compiler numbers them in the order of the text."""
    found: dict[str, range] = {}
    before = 0
    for symbol, body in re.findall(r"(\w+)\([^()]*\) \{\n(.*?)\n\}\n", bodies, re.DOTALL):
        count = body.count("__syncthreads()")
        found[symbol] = range(before, before + count)
        before += count
    return found
