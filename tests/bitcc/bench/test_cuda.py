"""The benchmark for GPUs, with the CPU in place of the GPU: what it runs, checks and says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bitcc import nvidia, runtime
from bitcc.bench import cuda, op, results, table
from bitcc.errors import TargetError, VerificationError

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.command import Run

PROBLEM = "no CUDA device: the driver (libcuda.so.1) is not installed"
MISSING = nvidia.look().problem  # asked for now: other tests load a fake driver into this process


@pytest.fixture
def _cpu_as_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is the CPU, whose memory is that of the GPU."""
    monkeypatch.setattr(runtime, "check_cuda", lambda: "a GPU (sm_90)")
    monkeypatch.setattr(runtime, "CUDA", *runtime.CPU)
    monkeypatch.setattr(runtime, "WITH_CUDA", runtime.CPU)
    monkeypatch.setattr(cuda, "DEVICE", "cpu")


def tiny(plan: op.Plan) -> op.Plan:
    return replace(
        cuda.plan(((48, 128),)), kinds=((1, results.ON_GPU), (8, results.ON_GPU)), pace=plan.pace,
        stream_bytes=plan.stream_bytes,
    )  # fmt: skip


@pytest.mark.usefixtures("_cpu_as_gpu")
def test_our_op_is_exact_and_all_peers_run_on_the_same_weights(library: Path, tiny_plan: op.Plan) -> None:
    bench = cuda.run(library, tiny(tiny_plan))
    assert [result.case.tokens for result in bench.cases] == [1, 8]
    for result in bench.cases:
        assert [t.contender for t in result.timings] == ["bitcc", "bitcc16", "float16", "float32", "nbits4"]
        assert [t.reason for t in result.timings] == [""] * 5
        errors = {t.contender: t.error for t in result.timings}
        assert errors["bitcc"] == 0
        assert errors["bitcc16"] is not None
        assert 0 < errors["bitcc16"] < 1e-3
        copies = {t.contender: t.copies for t in result.timings}
        assert copies["bitcc"] > copies["nbits4"] > copies["float16"] > copies["float32"]
    assert bench.machine.gpu == "a GPU (sm_90)"
    text = table.to_text(table.op_table(bench))
    assert "8 token(s), gpu, 1 thread(s)" in text
    assert text.startswith("a GPU (sm_90), ")


@pytest.mark.usefixtures("_cpu_as_gpu")
def test_an_op_that_runs_on_the_cpu_ends_the_benchmark(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "places", lambda *_: {"CPUExecutionProvider": 1, "CUDAExecutionProvider": 2})
    with pytest.raises(VerificationError, match=r"a GPU \(sm_90\): BitLinear ran on CPUExecutionProvider"):
        cuda.run(library)


def test_the_quick_plan_is_part_of_the_default_one() -> None:
    assert set(cuda.quick().shapes) < set(cuda.plan().shapes)
    assert cuda.quick().kinds == cuda.plan().kinds
    assert [tokens for tokens, _ in cuda.plan().kinds] == [1, 8, 64, 512]


def test_without_a_gpu_it_is_said_before_anything_is_built(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvidia, "look", lambda: nvidia.Gpus(problem=PROBLEM))
    with pytest.raises(TargetError) as raised:
        cuda.run(library)
    assert str(raised.value) == PROBLEM


@pytest.mark.skipif(not MISSING, reason="there is a GPU")
def test_the_command_needs_a_gpu(bitcc_command: Run) -> None:
    done = bitcc_command("bench", "--target", "cuda")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {MISSING}")
    assert "hint: run this on a machine with an NVIDIA GPU" in done.stderr
