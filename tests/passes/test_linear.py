"""The work and the memory of a compilation grow with the size of the model and no faster."""

from __future__ import annotations

import tracemalloc
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
    from pathlib import Path

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


@pytest.mark.parametrize("form", ["latent fp32", "latent fp16", "noisy fp32", "noisy fp16", "int8"])
def test_packed_weights_are_all_that_is_held_of_a_layer(tmp_path: Path, form: str) -> None:
    """Beside the file, which is mapped, and some blocks."""
    side = 2048
    layer_models.write(tmp_path, form, 2, side)
    tracemalloc.start()
    pack(tmp_path, form, 2, side)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < side * side // 4 + (6 << 20)
