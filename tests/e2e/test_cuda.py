"""Bundles for GPUs, on a machine without one: what they hold, say, and do on the CPU."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from e2e.command import EXAMPLE

import bitcc
from bitcc import bundle, libraries, runtime_ops, targets
from bitcc.errors import BundleError, TargetError
from bitcc.targets import _cuda_compiler
from bitcc.targets._cuda_compiler import Compiled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bitcc.bundle import Bundle

pytestmark = pytest.mark.skipif(libraries.host_target() != "x86-64", reason="for x86-64")

WITH_CUDA = ["CUDAExecutionProvider", "CPUExecutionProvider"]


class Words:
    """A compiler that needs no toolkit; no GPU is there to run what it makes."""

    version = "words"

    def compile(self, source: str, gpu: int, _folder: Path) -> Compiled:
        """Some bytes."""
        return Compiled(b"cubin %d of %d" % (gpu, len(source)), b"ptx")


@pytest.fixture(scope="module")
def _small_target() -> Iterator[None]:
    """Target `cuda` with the portable CPU kernels, so that it is built in a moment."""
    small = replace(targets.get("cuda"), variants=targets.get("cuda").variants[-1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cuda_compiler, "find", Words)
        patch.setattr(targets, "TARGETS", MappingProxyType({**targets.TARGETS, "cuda": small}))
        yield


@pytest.fixture(scope="module")
def both(_small_target: None, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The example for the CPU and for CUDA."""
    return bitcc.compile(EXAMPLE, tmp_path_factory.mktemp("both") / "b", targets=["x86-64", "cuda"])


@pytest.fixture(scope="module")
def alone(_small_target: None, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The example for CUDA."""
    return bitcc.compile(EXAMPLE, tmp_path_factory.mktemp("alone") / "b", targets="cuda")


def test_the_model_is_the_same_with_and_without_cuda(both: Bundle, example_bundle: Path) -> None:
    read = bundle.read(both.path)
    read.check_digests()
    assert read.manifest.files == bundle.read(example_bundle).manifest.files
    cpu, cuda = read.manifest.targets
    assert (cpu.name, cpu.library, cpu.gpus) == ("x86-64", "x86-64/libbitcc_ops.so", ())
    assert (cuda.name, cuda.library) == ("cuda", "cuda/libbitcc_ops_cuda.so")
    assert cuda.gpus == ("sm_90", "sm_89", "sm_86", "sm_80", "sm_75", "compute_90")


def test_the_library_for_cuda_computes_the_same_on_the_cpu(both: Bundle, alone: Bundle) -> None:
    feeds = {"tokens": np.array([[1, 2, 3]]), "past": np.zeros((3, 2, 1, 4, 0, 64), np.float32)}
    got, want = (bitcc.session(one).run(None, feeds) for one in (alone, both))
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_session_takes_the_cpu_library_unless_cuda_is_asked_for(
    both: Bundle, alone: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = []

    def register(_options: Any, library: Path) -> None:
        registered.append(library.name)
        raise TargetError("it is enough")

    monkeypatch.setattr(runtime_ops, "register", register)
    for one, providers in ((both, ["CPUExecutionProvider"]), (both, WITH_CUDA), (alone, WITH_CUDA)):
        with pytest.raises(TargetError, match="it is enough"):
            bitcc.session(one, providers=providers)
    with pytest.raises(TargetError, match="it is enough"):
        bitcc.session(both, providers=[("CUDAExecutionProvider", {"device_id": "0"})])
    cuda = "libbitcc_ops_cuda.so"
    assert registered == ["libbitcc_ops.so", cuda, cuda, cuda]


def test_a_session_with_cuda_needs_its_library(example_bundle: Path) -> None:
    with pytest.raises(BundleError, match="it holds a library for x86-64, not for cuda") as raised:
        bitcc.session(example_bundle, providers=WITH_CUDA)
    assert raised.value.hint == "compile the model again with --target cuda"


def test_a_session_that_would_leave_cuda_out_is_refused(
    both: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(TargetError, match=r"this onnxruntime \(.*\) has no CUDAExecutionProvider") as raised:
        bitcc.session(both, providers=WITH_CUDA)
    assert "pip install onnxruntime-gpu" in raised.value.hint


def test_one_target_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="`cuda:sm_80` and `cuda` are one target") as raised:
        bitcc.compile(EXAMPLE, tmp_path / "b", targets=["cuda:sm_80", "x86-64", "cuda"])
    assert raised.value.hint == "name its GPUs together: `cuda:sm_80,sm_90`"
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_small_target")
def test_without_a_compiler_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda_compiler, "find", lambda: None)
    monkeypatch.setenv("BITCC_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(TargetError, match="there is no compiler for CUDA"):
        bitcc.compile(EXAMPLE, tmp_path / "b", targets=["cuda"])
    assert not (tmp_path / "b").exists()


def test_what_was_not_run_on_a_gpu_is_said(alone: Bundle) -> None:
    assert alone.manifest.verify["status"] == "passed"
    assert alone.manifest.verify["reason"] == "not run: the CUDA kernels"
