"""Pack a model, and run it in onnxruntime as it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from bitcc import passes
from models.weights import K

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from bitcc.facts import LayerFacts

    Array = NDArray[Any]


def pack(model: onnx.ModelProto, **options: Any) -> tuple[onnx.ModelProto, tuple[LayerFacts, ...]]:
    """The model after the passes, and what they say of its layers."""
    graph = ir.from_proto(model)
    passes.pipeline(passes.PackBitLinearPass(**options))(graph)
    return ir.to_proto(graph), graph.meta[passes.FACTS]


def tokens(*shape: int, seed: int = 0, k: int = K) -> NDArray[np.float32]:
    """Inputs [*shape, k] of unlike sizes: one scale for all of them would be wrong."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(-5, 5, (*shape, 1)))
    return (rng.standard_normal((*shape, k)) * sizes).astype(np.float32)


def run(model: onnx.ModelProto, x: Array, **more: Array) -> list[Array]:
    """All outputs; nothing is optimised, so that the model runs as it is written."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds: Mapping[str, Array] = {"x": x, **more}
    return list(session.run(None, feeds))


def largest_difference(got: Array, want: Array) -> float:
    """max|got - want| / max|want|."""
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    return float(np.abs(got.astype(np.float64) - want).max() / np.abs(want).max())
