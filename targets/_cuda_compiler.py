"""From CUDA C to what a GPU runs: by nvcc where it is installed, else by NVRTC, a package of PyPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bitcc.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = "kernels"
_FLAGS = ("-fmad=false",)  # every float operation is rounded by itself, as on the CPU
_MOST_WORDS = 2000  # of a compiler's complaint
HINT = 'pip install "bitcc[cuda]", or put nvcc of the CUDA toolkit on PATH'


@dataclass(frozen=True)
class Compiled:
    """What a compiler makes of a source for one GPU.

    Attributes:
        cubin: An ELF file with the GPU's own code.
        ptx: Text without an end mark, which a driver translates for GPUs that are newer.
    """

    cubin: bytes
    ptx: bytes


class Compiler(Protocol):
    """One that was found."""

    @property
    def version(self) -> str:
        """Which it is, such as ``nvcc 13.0.88``."""

    def compile(self, source: str, gpu: int, folder: Path) -> Compiled:
        """Compile for a compute capability times ten; `folder` is empty and may be used.

        The same input gives the same bytes, and no path is in them. May be called by threads at once.

        Raises:
            TargetError: the compiler refuses; the hint is what it said.
        """


def find() -> Compiler | None:
    """The first one of `found`, or None."""
    return next(found(), None)


def found() -> Iterator[Compiler]:
    """All that can be used: nvcc on PATH, or in CUDA_HOME or CUDA_PATH, then NVRTC."""
    for path in _places():
        version = _nvcc_version(path)
        if version:
            yield Nvcc(path, version)
    version = _nvrtc_version()
    if version:
        yield Nvrtc(version)


def _places() -> Iterator[str]:
    folders = [
        None,
        *(f"{os.environ[name]}/bin" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ),
    ]
    found = (shutil.which("nvcc", path=folder) for folder in folders)
    return (path for path in found if path is not None)


def _nvcc_version(path: str) -> str:
    """Empty if it does not run."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return ""
    version = re.search(r"\bV(\d[\d.]*)", done.stdout)
    return version[1] if version and done.returncode == 0 else ""


@dataclass(frozen=True)
class Nvcc:
    """The compiler of the CUDA toolkit.

    Attributes:
        path: The program.
        number: Its version.
    """

    path: str
    number: str

    @property
    def version(self) -> str:
        """Which it is."""
        return f"nvcc {self.number}"

    def compile(self, source: str, gpu: int, folder: Path) -> Compiled:
        """As `Compiler` says."""
        (folder / f"{_NAME}.cu").write_text(source, encoding="ascii")
        command = [
            self.path, "-cubin", f"-arch=sm_{gpu}", *_FLAGS, "--keep", f"{_NAME}.cu", "-o", f"{_NAME}.cubin",
        ]  # fmt: skip
        done = subprocess.run(  # noqa: S603 - our own command
            command, cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise _refused(gpu, self.version, done.stderr or done.stdout)
        return Compiled(*((folder / f"{_NAME}.{end}").read_bytes() for end in ("cubin", "ptx")))


def _nvrtc() -> Any:
    """The bindings of NVRTC.

    Raises:
        ImportError: they are not installed.
    """
    from cuda.bindings import nvrtc  # noqa: PLC0415 - an extra

    return nvrtc


def _nvrtc_version() -> str:
    """Empty if it is not there."""
    try:
        error, major, minor = _nvrtc().nvrtcVersion()
    except Exception:  # noqa: BLE001 - the bindings are there and the library is not: not always an ImportError
        return ""
    return "" if int(error) else f"{major}.{minor}"


@dataclass(frozen=True)
class Nvrtc:
    """The compiler as a library. It needs neither a GPU, nor its driver, nor a host compiler.

    Attributes:
        number: Its version.
    """

    number: str

    @property
    def version(self) -> str:
        """Which it is."""
        return f"NVRTC {self.number}"

    def compile(self, source: str, gpu: int, folder: Path) -> Compiled:  # noqa: ARG002 - needs no files
        """As `Compiler` says."""
        nvrtc = _nvrtc()
        options = [option.encode() for option in (f"--gpu-architecture=sm_{gpu}", *_FLAGS)]
        program = self._do(gpu, nvrtc.nvrtcCreateProgram(source.encode(), f"{_NAME}.cu".encode(), 0, [], []))
        try:
            (failed,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
            if int(failed):
                raise _refused(
                    gpu, self.version, self._text(gpu, program, "ProgramLog").decode(errors="replace")
                )
            return Compiled(self._text(gpu, program, "CUBIN"), self._text(gpu, program, "PTX").rstrip(b"\0"))
        finally:
            nvrtc.nvrtcDestroyProgram(program)

    def _text(self, gpu: int, program: Any, what: str) -> bytes:
        """One of the outputs of a program."""
        nvrtc = _nvrtc()
        buffer = bytes(self._do(gpu, getattr(nvrtc, f"nvrtcGet{what}Size")(program)))
        self._do(gpu, getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
        return buffer

    def _do(self, gpu: int, answer: tuple[Any, ...]) -> Any:
        """What a call gives besides its error code."""
        error, *results = answer
        if int(error):
            raise _refused(gpu, self.version, str(error))
        return results[0] if results else None


def _refused(gpu: int, compiler: str, words: str) -> TargetError:
    return TargetError(
        f"the CUDA kernels cannot be compiled for sm_{gpu}",
        where=compiler,
        hint=words.strip("\0\n ")[:_MOST_WORDS] or "it says nothing",
    )
