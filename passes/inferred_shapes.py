"""Infer shapes for the matchers without a trace in the model."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnx_ir.passes.common import ShapeInferencePass

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir


@contextmanager
def inferred_shapes(model: ir.Model) -> Iterator[None]:
    """Infer shapes for the matchers, and afterwards give every value back what the file said of it."""
    graphs = list(model.graphs())
    initializers = [v for graph in graphs for v in graph.initializers.values()]
    values = [v for graph in graphs for node in graph for v in node.outputs] + initializers
    declared = [(v, v.type, v.shape) for v in values]
    held = [(v, v.const_value) for v in model.graph.initializers.values()]
    inputs = list(model.graph.inputs)
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    # onnx_ir takes the large initializers out meanwhile, puts them back at the end, and not at all if it
    # cannot write the model
    model.graph.inputs[:] = inputs
    model.graph.initializers.clear()
    for value, tensor in held:
        value.const_value = tensor
        model.graph.initializers.add(value)
    try:
        yield
    finally:
        for value, tensor_type, shape in declared:
            value.type, value.shape = tensor_type, shape
