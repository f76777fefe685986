"""What users run over a model before they compile it: each reads one file and writes another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Tool = Callable[[Path, Path], None]


def onnxslim(source: Path, target: Path) -> None:
    import onnxslim as tool  # noqa: PLC0415 - each is needed by one function

    tool.slim(str(source), str(target))


def onnxsim(source: Path, target: Path) -> None:
    import onnxsim as tool  # noqa: PLC0415

    model, valid = tool.simplify(onnx.load(source))
    assert valid
    onnx.save(model, target)


def onnxscript(source: Path, target: Path) -> None:
    from onnxscript import optimizer  # noqa: PLC0415

    onnx.save(optimizer.optimize(onnx.load(source)), target)


def onnxruntime_basic(source: Path, target: Path) -> None:
    _offline(source, target, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)


def onnxruntime_extended(source: Path, target: Path) -> None:
    _offline(source, target, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)


def _offline(source: Path, target: Path, level: ort.GraphOptimizationLevel) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


OPTIMISERS: dict[str, Tool] = {
    f.__name__: f for f in (onnxslim, onnxsim, onnxscript, onnxruntime_basic, onnxruntime_extended)
}
