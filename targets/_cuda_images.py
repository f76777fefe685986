"""The CUDA kernels in a library: as read-only data, with the two tables that `bitcc/cuda.h` asks for."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from bitcc.targets._cuda import Kernel
    from bitcc.targets._cuda_compiler import Compiled, Compiler

_ASSEMBLER = "cuda_images.s"
_INCLUDE = "cuda.inc"
_PREFIX = "bitcc_cuda_"  # of symbols, and of the files that hold the images


def write(gpus: Sequence[int], compiler: Compiler, directory: Path, say: Callable[[str], None]) -> Path:
    """Write `cuda.inc`, the images, and the assembler file that holds them.

    Args:
        gpus: Compute capabilities times ten, highest first.
        compiler: Which to use.
        directory: Where the assembler runs.
        say: Called with a few words when an image is there.

    Returns:
        The assembler file.

    Raises:
        TargetError: the compiler refuses.
    """
    # takes seconds to import, and a cached library needs none of it
    from bitcc.targets._cuda import KERNELS  # noqa: PLC0415
    from bitcc.targets._cuda_codegen import source  # noqa: PLC0415

    say("cuda: source")
    compiled = _compile(source(KERNELS), gpus, compiler, directory, say)
    images = {f"{gpu}": one.cubin for gpu, one in zip(gpus, compiled, strict=True)}
    images[f"{gpus[0]}_ptx"] = compiled[0].ptx
    for name, content in images.items():
        (directory / f"{_PREFIX}{name}").write_bytes(content)
    (directory / _INCLUDE).write_text(_tables(gpus, KERNELS), encoding="ascii")
    path = directory / _ASSEMBLER
    path.write_text("".join(_data(name, content) for name, content in images.items()), encoding="ascii")
    return path


def _compile(
    source: str, gpus: Sequence[int], compiler: Compiler, directory: Path, say: Callable[[str], None]
) -> list[Compiled]:
    """For every GPU, in their order; as many at once as there are CPUs, since each takes seconds."""

    def one(gpu: int) -> Compiled:
        folder = directory / f"sm_{gpu}"
        folder.mkdir()
        return compiler.compile(source, gpu, folder)

    compiled = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for gpu, done in zip(gpus, pool.map(one, gpus), strict=True):
            say(f"cuda: sm_{gpu}")
            compiled.append(done)
    return compiled


def _tables(gpus: Sequence[int], kernels: Iterable[Kernel]) -> str:
    """The lines of `cuda.inc`."""
    images = [(gpu, 0, f"{_PREFIX}{gpu}") for gpu in gpus]
    images.append((gpus[0], 1, f"{_PREFIX}{gpus[0]}_ptx"))
    lines = [f"BITCC_CUDA_IMAGE({gpu}, {ptx}, {symbol})\n" for gpu, ptx, symbol in images]
    lines += [
        f"BITCC_CUDA_KERNEL({k.family}, {k.element.name}, {k.threads}, {k.rows}, {k.tokens})\n"
        for k in kernels
    ]
    return "".join(lines)


def _data(name: str, content: bytes) -> str:
    """An image between two symbols, and the end mark of a C string, as which drivers read PTX.

    The digest is for the C compiler's cache, which looks at the assembler file alone.
    """
    symbol = f"{_PREFIX}{name}"
    return f"""\
# {hashlib.sha256(content).hexdigest()}
.section .rodata.{symbol}, "a", @progbits
.balign 64
.globl {symbol}_begin, {symbol}_end
.hidden {symbol}_begin, {symbol}_end
{symbol}_begin:
.incbin "{symbol}"
{symbol}_end:
.byte 0
"""
