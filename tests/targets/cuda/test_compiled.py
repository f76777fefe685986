"""What nvcc and ptxas make of the CUDA kernels: nothing here runs, and nothing is timed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from bitcc.targets import _cuda, _cuda_codegen
from bitcc.targets._cuda_element import ELEMENTS

if TYPE_CHECKING:
    from pathlib import Path

# each GPU with one of the element types, since a compilation takes seconds: the types differ at the ends only
GPUS = {"75": "float", "80": "float16", "86": "bfloat16", "89": "float", "90": "float16"}
SM_THREADS = {"75": 1024, "80": 2048, "86": 1536, "89": 1536, "90": 2048}
SM_REGISTERS, WARP_REGISTERS = 65536, 256  # allocated in such units
NVCC = shutil.which("nvcc")

pytestmark = pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")


@dataclass(frozen=True)
class Compiled:
    """One kernel, as ptxas reports it."""

    gpu: str
    kernel: _cuda.Kernel
    ptx: str
    registers: int
    spilled: int

    @property
    def occupancy(self) -> float:
        """Threads that an SM has registers for, of those it could run."""
        warps = self.kernel.threads // 32
        each = -(-self.registers * 32 // WARP_REGISTERS) * WARP_REGISTERS
        blocks = SM_REGISTERS // each // warps
        return min(blocks * self.kernel.threads / SM_THREADS[self.gpu], 1)


def test_every_type_and_gpu_is_compiled_here() -> None:
    assert set(GPUS.values()) == {element.name for element in ELEMENTS}
    assert GPUS.keys() == SM_THREADS.keys()


@pytest.mark.parametrize("gpu", GPUS)
def test_the_compilers_keep_what_the_kernels_are_written_for(gpu: str, tmp_path: Path) -> None:
    kernels = compiled(gpu, tmp_path)  # one test for each GPU, since this takes seconds
    nothing_is_spilled(kernels)
    half_of_the_threads_of_an_sm_run_when_few_tokens_are_decoded(kernels)
    gemv_reads_weights_16_bytes_at_a_time_and_multiplies_four_an_instruction(kernels["gemv"])
    weights_are_asked_for_before_the_first_barrier(kernels["gemv"])
    no_multiplication_of_the_tensor_cores_is_wasted(kernels["gemm"], rows=32, tokens=64)
    no_multiplication_of_the_tensor_cores_is_wasted(kernels["gemm_many"], rows=64, tokens=64)


def compiled(gpu: str, folder: Path) -> dict[str, Compiled]:
    """The kernels for one GPU and its type, by family."""
    kernels = [kernel for kernel in _cuda.KERNELS if kernel.element.name == GPUS[gpu]]
    (folder / "kernels.cu").write_text(_cuda_codegen.source(kernels), encoding="ascii")
    done = subprocess.run(
        [str(NVCC), "-cubin", f"-arch=sm_{gpu}", "-fmad=false", "-Xptxas=-v", "-Werror=all-warnings",
         "--keep", "kernels.cu"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ptx = (folder / "kernels.ptx").read_text(encoding="ascii")
    return {kernel.family: _compiled(gpu, kernel, ptx, done.stderr) for kernel in kernels}


def _compiled(gpu: str, kernel: _cuda.Kernel, ptx: str, report: str) -> Compiled:
    symbol = re.escape(kernel.symbol)
    facts = re.search(
        rf"Function properties for {symbol}\n.*?(\d+) bytes spill stores, (\d+) bytes spill loads\n"
        r".*?Used (\d+) registers",
        report,
    )
    body = re.search(rf"\.entry {symbol}\((.*?)\n}}", ptx, re.DOTALL)
    assert facts is not None
    assert body is not None
    stores, loads, registers = map(int, facts.groups())
    return Compiled(gpu, kernel, body[1], registers, stores + loads)


def nothing_is_spilled(kernels: dict[str, Compiled]) -> None:
    assert {family: kernel.spilled for family, kernel in kernels.items()} == dict.fromkeys(kernels, 0)


def half_of_the_threads_of_an_sm_run_when_few_tokens_are_decoded(kernels: dict[str, Compiled]) -> None:
    assert min(kernels[family].occupancy for family in ("quantize", "gemv", "gemm_few")) >= 0.5


def gemv_reads_weights_16_bytes_at_a_time_and_multiplies_four_an_instruction(gemv: Compiled) -> None:
    loop = gemv.ptx[: gemv.ptx.index("shfl.sync")]  # threads exchange their sums after the loop over K
    weights, others = loop.count("ld.global.L1::no_allocate.v4"), loop.count("ld.global.nc.v4")
    assert loop.count("ld.global") == weights + others
    assert weights / (weights + others) >= 0.85
    assert loop.count("dp4a") == weights * 64 / 4  # 64 weights in 16 bytes


def weights_are_asked_for_before_the_first_barrier(gemv: Compiled) -> None:
    assert gemv.ptx.rindex("no_allocate") < gemv.ptx.index("bar.sync")


def no_multiplication_of_the_tensor_cores_is_wasted(gemm: Compiled, rows: int, tokens: int) -> None:
    """A warp takes so many rows and tokens, and 64 columns a step."""
    of_an_instruction = 8 * 8 * 16 if gemm.gpu == "75" else 16 * 8 * 32
    assert gemm.ptx.count("mma.sync") == rows * tokens * 64 // of_an_instruction
