"""The work and the memory of a compilation grow with the size of the model and no faster."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from benchmarks import layer_models
from bitcc import passes
from bitcc.facts import PACKED
from bitcc.passes import constants, elementwise

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitcc.formats import Bytes


def dropped(data: Bytes) -> ir.TensorProtocol:
    """What a store keeps in memory of weights that it wrote to a file."""
    return ir.tensor(data[:0].copy())


def pack(folder: Path, form: str, layers: int, side: int) -> None:
    model = ir.load(folder / "model.onnx")
    passes.pipeline(passes.PackBitLinearPass(min_weights=0, store=dropped))(model)
    assert [fact.status for fact in model.meta[passes.FACTS]] == [PACKED] * layers, (form, side)


def counted(folder: Path, form: str, layers: int) -> dict[str, int]:
    """How often the steps that cost are taken for a model of that many layers."""
    folder.mkdir()
    layer_models.write(folder, form, layers, 64)
    count = dict.fromkeys(STEPS, 0)
    with pytest.MonkeyPatch.context() as patch:
        for step, (where, name) in STEPS.items():
            patch.setattr(where, name, counting(count, step, getattr(where, name)))
        pack(folder, form, layers, 64)
    return count


STEPS: dict[str, tuple[Any, str]] = {
    "element-wise nodes": (elementwise, "apply"),
    "other nodes": (ReferenceEvaluator, "run"),
    "reads of a tensor": (constants, "_load"),
    "sessions": (ort, "InferenceSession"),
}


def counting(count: dict[str, int], step: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted_function(*arguments: Any, **options: Any) -> Any:
        count[step] += 1
        return function(*arguments, **options)

    return counted_function


@pytest.mark.parametrize("form", layer_models.FORMS)
def test_each_layer_costs_the_same_steps_and_no_session(tmp_path: Path, form: str) -> None:
    one, two, four = (counted(tmp_path / str(layers), form, layers) for layers in (1, 2, 4))
    for step in STEPS:
        assert four[step] - two[step] == 2 * (two[step] - one[step]), step
    assert one["sessions"] == four["sessions"] <= 2
    assert one["reads of a tensor"] > 0


@pytest.mark.parametrize("form", ["latent fp32", "latent fp16", "noisy fp32", "int8"])
def test_no_more_memory_is_taken_than_twice_the_weights_of_a_layer(tmp_path: Path, form: str) -> None:
    """Beside the file, which is mapped, and some blocks; packed weights count as one byte each."""
    side = 1024
    stored = layer_models.write(tmp_path, form, 2, side) // 2
    tracemalloc.start()
    pack(tmp_path, form, 2, side)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * max(stored, side * side) + (4 << 20)


# Packs a small model, so that all is loaded, and then a large one; prints how many bytes the second one adds.
RESIDENT = """
import pathlib, sys, tempfile
import onnx_ir as ir
from bitcc import passes

def status(key):
    line = next(line for line in pathlib.Path("/proc/self/status").open() if line.startswith(key))
    return int(line.split()[1]) << 10

def pack(path):
    with tempfile.TemporaryFile() as spool:
        def store(data):
            spool.write(data.data)
            return ir.tensor(data[:0].copy())
        passes.pipeline(passes.PackBitLinearPass(min_weights=0, store=store))(ir.load(path))

pack(sys.argv[1])
before = status("VmRSS")
pack(sys.argv[2])
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the memory of a process")
@pytest.mark.parametrize("form", ["latent fp32", "latent fp16", "int8"])
def test_the_process_holds_the_largest_tensor_twice_and_its_packed_weights(tmp_path: Path, form: str) -> None:
    """Pages of the mapped file included. Blocks and sessions take less than 16 MB, whatever the size."""
    side, layers = 2048, 12
    small, large = tmp_path / "small", tmp_path / "large"
    for folder in (small, large):
        folder.mkdir()
    layer_models.write(small, form, 1, 64)
    stored = layer_models.write(large, form, layers, side) // layers
    paths = [str(folder / "model.onnx") for folder in (small, large)]
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, *paths], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 2 * stored + side * side // 4 + (16 << 20)
    (large / "model.data").unlink()
