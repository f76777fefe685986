"""What a library for GPUs carries, read through the tables that its launcher reads; nothing runs on a GPU."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bitcc import runtime_ops, targets
from bitcc.errors import TargetError
from bitcc.targets import _build, _cuda, _cuda_compiler
from bitcc.targets._cuda_compiler import Compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitcc.targets import Target

HEADER = (runtime_ops.include_dir() / "bitcc" / "cuda.h").read_text(encoding="ascii")
FAMILIES, ELEMENTS = (
    re.findall(r"BITCC_CUDA_([a-z]\w*),", names)
    for names in re.findall(r"typedef enum \{(.*?)\}", HEADER, re.DOTALL)
)
SHOWN = Path(__file__).with_name("shown.c")
FAST = 'extern "C" __global__ void fill(float *x) { x[threadIdx.x] = 1.0f; }\n'
CUDA_MACHINE = 190  # e_machine of an ELF file for GPUs


class Image(ctypes.Structure):
    """`bitcc_cuda_image` of cuda.h."""

    _fields_ = (
        ("capability", ctypes.c_int32),
        ("ptx", ctypes.c_bool),
        ("begin", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
    )


class Kernel(ctypes.Structure):
    """`bitcc_cuda_kernel` of cuda.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("threads", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("tokens", ctypes.c_int32),
    )


@dataclass(frozen=True)
class Words:
    """A compiler that needs no toolkit: its images are words."""

    version: str = "words 1"
    asked: list[int] = field(default_factory=list)

    def compile(self, source: str, gpu: int, folder: Path) -> Compiled:
        """The words say for what they are."""
        assert "bitcc_gemv_float(" in source
        assert not any(folder.iterdir())
        self.asked.append(gpu)
        return Compiled(f"{self.version} cubin {gpu}".encode(), f"{self.version} ptx {gpu}".encode())


def images(library: Path) -> dict[tuple[int, bool], bytes]:
    """By capability and whether it is PTX, what lies in the library; with the mark behind it."""
    shown = ctypes.CDLL(os.fspath(library)).shown_images
    shown.restype = ctypes.POINTER(Image)
    found = {}
    for image in iter(shown()[i] for i in range(99)):
        if not image.begin:
            return found
        assert image.begin % 64 == 0
        found[image.capability, image.ptx] = ctypes.string_at(image.begin, image.end - image.begin + 1)
    raise AssertionError("the table has no end")


def gpu_of(cubin: bytes) -> int:
    """The compute capability that an ELF file is for."""
    machine, flags = struct.unpack_from("<H", cubin, 18)[0], struct.unpack_from("<I", cubin, 48)[0]
    assert cubin[:5] == b"\x7fELF\x02"
    assert machine == CUDA_MACHINE
    newer = cubin[8] >= 8  # since CUDA 13
    return flags >> 8 & 0xFF if newer else flags & 0xFF


@pytest.fixture
def build_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Builds a library that shows its tables, with its portable CPU kernels alone and a compiler."""
    assert cache.is_dir()

    def build(target: Target, compiler: Any, version: str = "1", **more: Any) -> Path:
        monkeypatch.setattr(_cuda_compiler, "find", lambda: compiler)
        small = replace(target, variants=target.variants[-1:])
        sources, include = [SHOWN, *runtime_ops.sources(cuda=True)], runtime_ops.include_dir()
        return targets.build_library(small, sources=sources, include=include, version=version, **more)

    return build


def test_a_library_carries_what_was_asked_for(build_for: Callable[..., Path]) -> None:
    every = images(build_for(targets.get("cuda"), Words()))
    assert every == {
        **{(gpu, False): b"words 1 cubin %d\0" % gpu for gpu in (75, 80, 86, 89, 90)},
        (90, True): b"words 1 ptx 90\0",
    }
    one = images(build_for(targets.get("cuda:sm_80"), Words()))
    assert one == {(80, False): b"words 1 cubin 80\0", (80, True): b"words 1 ptx 80\0"}
    assert list(images(build_for(targets.get("cuda:sm_80,sm_86"), Words()))) == [
        (86, False), (80, False), (86, True),
    ]  # fmt: skip


def test_the_table_is_that_of_the_kernels(build_for: Callable[..., Path]) -> None:
    shown = ctypes.CDLL(os.fspath(build_for(targets.get("cuda"), Words()))).shown_kernel
    shown.restype = ctypes.POINTER(Kernel)
    for kernel in _cuda.KERNELS:
        row = shown(FAMILIES.index(kernel.family), ELEMENTS.index(kernel.element.name))[0]
        assert row.name == kernel.symbol.encode()
        assert (row.threads, row.rows, row.tokens) == (kernel.threads, kernel.rows, kernel.tokens)
    assert len(_cuda.KERNELS) == len(FAMILIES) * len(ELEMENTS)


def test_other_images_are_another_library(build_for: Callable[..., Path]) -> None:
    # the tables and all symbols are the same, so that the C compiler's cache could take one for the other
    first = build_for(targets.get("cuda:sm_80"), Words())
    other = build_for(targets.get("cuda:sm_80"), Words("words 2"))
    assert images(first)[80, False] == b"words 1 cubin 80\0"
    assert images(other)[80, False] == b"words 2 cubin 80\0"


def test_a_built_library_is_found_without_a_compiler(build_for: Callable[..., Path]) -> None:
    compiler = Words("words 3")
    built = build_for(targets.get("cuda:sm_75"), compiler)
    assert build_for(targets.get("cuda:sm_75"), compiler) == built
    assert compiler.asked == [75]  # once
    assert build_for(targets.get("cuda:sm_75"), None) == built


def test_without_a_compiler_it_is_said_how_to_get_one(build_for: Callable[..., Path]) -> None:
    with pytest.raises(TargetError, match="target `cuda`: there is no compiler for CUDA") as raised:
        build_for(targets.get("cuda:sm_89"), None, version="never built")
    assert raised.value.hint == 'pip install "bitcc[cuda]", or put nvcc of the CUDA toolkit on PATH'


def test_a_missing_compiler_is_noticed_before_any_work(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache.is_dir()

    def check(name: str) -> None:
        include = runtime_ops.include_dir()
        _build.check_tools(targets.get(name), sources=[SHOWN], include=include, version="never built")

    monkeypatch.setattr(_cuda_compiler, "find", lambda: None)
    check("x86-64")
    with pytest.raises(TargetError, match="there is no compiler for CUDA"):
        check("cuda")
    monkeypatch.setattr(_cuda_compiler, "find", Words)
    check("cuda")


def test_progress_names_the_gpus(build_for: Callable[..., Path]) -> None:
    steps: list[str] = []
    build_for(targets.get("cuda:sm_80,sm_90"), Words(), version="progress", progress=steps.append)
    assert steps[-4:] == ["cuda: source", "cuda: sm_90", "cuda: sm_80", "linking"]


@pytest.mark.parametrize("gpus", ["sm_70", "sm_90a", "80", "", "sm_80,", "sm_80,sm_120", "sm_80 , sm_90"])
def test_an_unknown_gpu_is_refused_with_the_known_ones(gpus: str) -> None:
    with pytest.raises(TargetError, match=r"there is no GPU `.*` in target `cuda`") as raised:
        targets.get(f"cuda:{gpus}")
    assert all(f"sm_{known}" in raised.value.hint for known in (75, 80, 86, 89, 90))


def test_only_cuda_has_gpus() -> None:
    with pytest.raises(TargetError, match="there is no target `x86-64:sm_80`"):
        targets.get("x86-64:sm_80")
    assert targets.get("cuda:sm_80").gpu_code == ("sm_80", "compute_80")
    assert targets.get("x86-64").gpu_code == ()


def nvcc() -> Any:
    """The compiler of the toolkit."""
    found = [one for one in _cuda_compiler.found() if isinstance(one, _cuda_compiler.Nvcc)]
    return found[0] if found else pytest.skip("nvcc is not installed")


def nvrtc() -> Any:
    """The compiler of PyPI."""
    found = [one for one in _cuda_compiler.found() if isinstance(one, _cuda_compiler.Nvrtc)]
    return found[0] if found else pytest.skip('NVRTC is not installed: pip install "bitcc[cuda]"')


every_compiler = pytest.mark.parametrize("compiler", [nvcc, nvrtc])


@every_compiler
@pytest.mark.parametrize("gpu", [75, 90])
def test_a_compiler_makes_both_kinds_of_code(compiler: Callable[[], Any], gpu: int, tmp_path: Path) -> None:
    compiled = compiler().compile(FAST, gpu, tmp_path)
    assert gpu_of(compiled.cubin) == gpu
    assert b"fill" in compiled.cubin
    assert f".target sm_{gpu}\n".encode() in compiled.ptx
    assert b"\0" not in compiled.ptx


@every_compiler
def test_the_same_source_gives_the_same_bytes_anywhere(compiler: Callable[[], Any], tmp_path: Path) -> None:
    made = []
    for name in ("one", "another"):
        (tmp_path / name).mkdir()
        made.append(compiler().compile(FAST, 90, tmp_path / name))
    assert made[0] == made[1]
    assert str(tmp_path).encode() not in made[0].cubin + made[0].ptx


@every_compiler
def test_what_a_compiler_refuses_is_shown(compiler: Callable[[], Any], tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="the CUDA kernels cannot be compiled for sm_90") as raised:
        compiler().compile("this is not CUDA", 90, tmp_path)
    assert raised.value.where == compiler().version
    assert "kernels.cu(1): error: " in raised.value.hint


@every_compiler
def test_the_kernels_of_a_type_are_compiled_and_are_in_the_library(
    compiler: Callable[[], Any], build_for: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # a third of all, since this takes seconds
    monkeypatch.setattr(_cuda, "KERNELS", [k for k in _cuda.KERNELS if k.element.name == "float16"])
    both = images(build_for(targets.get("cuda:sm_90"), compiler()))
    assert gpu_of(both[90, False]) == 90
    assert all(kernel.symbol.encode() in both[90, False] for kernel in _cuda.KERNELS)
    assert all(f".entry {kernel.symbol}(".encode() in both[90, True] for kernel in _cuda.KERNELS)


def test_nvcc_is_taken_from_path_before_cuda_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("path", "home/bin"):
        program = tmp_path / name / "nvcc"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!{shutil.which('sh')}\necho release 1.2, V1.2.{len(name)}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    assert _version() == "nvcc 1.2.4"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _version() == "nvcc 1.2.8"
    (tmp_path / "home/bin/nvcc").write_text(f"#!{shutil.which('sh', path='/bin:/usr/bin')}\nexit 1\n")
    assert not _version().startswith("nvcc")


def _version() -> str:
    found = _cuda_compiler.find()
    return found.version if found else "none"
