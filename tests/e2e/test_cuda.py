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
from bitcc import bundle, doctor, libraries, nvidia, report, runtime, runtime_ops, targets, verify
from bitcc.errors import BundleError, TargetError, VerificationError
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
    words = "not run: the CUDA kernels; `bitcc verify --target cuda` does so on a GPU"
    assert alone.manifest.verify["reason"] == words


NO_DEVICE = "no CUDA device: the driver (libcuda.so.1) is not installed"


def test_without_a_gpu_nothing_is_verified_on_one(alone: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "look", lambda: nvidia.Gpus(problem=NO_DEVICE))
    with pytest.raises(TargetError) as raised:
        verify.verify_bundle(alone.path, EXAMPLE, None, target="cuda")
    assert str(raised.value) == NO_DEVICE
    assert "machine with an NVIDIA GPU" in raised.value.hint


def test_a_gpu_that_onnxruntime_cannot_use_is_said(alone: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "look", lambda: nvidia.Gpus(("a GPU (sm_90)",), "13.0"))
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(TargetError, match="has no CUDAExecutionProvider"):
        verify.verify_bundle(alone.path, EXAMPLE, None, target="cuda")


@pytest.fixture
def _cpu_as_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions for CUDA are such for the CPU, with its ops from the library for CUDA."""
    monkeypatch.setattr(runtime, "check_cuda", lambda: "a GPU")
    monkeypatch.setattr(runtime, "EXACT_CUDA", runtime.CPU)


@pytest.mark.usefixtures("_cpu_as_gpu")
def test_layers_that_ran_on_the_cpu_fail_a_verification_on_the_gpu(alone: Bundle) -> None:
    with pytest.raises(VerificationError, match="a GPU: 0 of 21 BitLinear nodes ran there"):
        verify.verify_bundle(alone.path, EXAMPLE, None, target="cuda")


@pytest.mark.usefixtures("_cpu_as_gpu")
def test_a_verification_says_where_layers_ran(alone: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "CUDA", *runtime.CPU)
    certificate = verify.verify_bundle(alone.path, EXAMPLE, None, target="cuda")
    assert certificate.status == "passed"
    assert certificate.reason == "21 BitLinear nodes ran on a GPU"
    assert certificate.max_error_library is not None


def test_a_bundle_is_not_verified_on_another_machine(alone: Bundle) -> None:
    with pytest.raises(TargetError, match=r"this machine \(x86-64\) cannot run arm64"):
        verify.verify_bundle(alone.path, EXAMPLE, None, target="arm64")
    assert verify.verify_bundle(alone.path, EXAMPLE, None, target="x86-64").status == "passed"


def test_layers_that_stay_on_the_cpu_are_named(alone: Bundle) -> None:
    assert report.on_gpu(alone.packed) == "with CUDA all 21 run on the GPU"
    first, second, *others = alone.packed
    slow = [replace(first, activation="float"), replace(second, activation="float")]
    words = f"since its activations are float: {first.name} and 1 more"
    assert report.on_gpu([*slow, *others]).endswith(words)
    assert report.on_gpu([*slow, *others]).startswith("with CUDA 19 run on the GPU; on the CPU")


@pytest.mark.usefixtures("_small_target")
def test_doctor_says_what_compiles_and_what_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "look", lambda: nvidia.Gpus(problem=NO_DEVICE))
    checks = {check.name: check for check in doctor.examine(target="cuda")}
    assert checks["CUDA compiler"].detail == "words"
    assert checks["kernels for GPUs"].detail == "sm_90, sm_89, sm_86, sm_80, sm_75, compute_90"
    assert checks["GPU"].detail == NO_DEVICE
    assert checks["GPU"].ok
    assert "CUDAExecutionProvider" in checks["onnxruntime and CUDA"].detail
    monkeypatch.setattr(nvidia, "look", lambda: nvidia.Gpus(("H100 (sm_90)",), "13.0"))
    monkeypatch.setattr(_cuda_compiler, "find", lambda: None)
    checks = {check.name: check for check in doctor.examine(target="cuda")}
    assert checks["GPU"].detail == "H100 (sm_90); driver for CUDA 13.0 or older"
    assert not checks["CUDA compiler"].ok
    assert checks["CUDA compiler"].hint.startswith('pip install "bitcc[cuda]"')
