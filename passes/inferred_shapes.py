"""Infer shapes for the matchers without a trace in the model."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

if TYPE_CHECKING:
    from collections.abc import Container, Iterator


@contextmanager
def inferred_shapes(model: ir.Model) -> Iterator[None]:
    """Infer shapes for the matchers, and afterwards give every value back what the file said of it.

    And every output of a graph, whatever value it is then: only what a pass makes within keeps its shape.
    """
    graphs = list(model.graphs())
    outputs = [(graph, [(v.type, v.shape) for v in graph.outputs]) for graph in graphs]
    initializers = [v for graph in graphs for v in graph.initializers.values()]
    values = [v for graph in graphs for node in graph for v in node.outputs] + initializers
    declared = [(v, v.type, v.shape) for v in values]
    held = [(v, v.const_value) for v in model.graph.initializers.values()]
    inputs = list(model.graph.inputs)
    named = {d for v in inputs if v.shape is not None for d in v.shape if not isinstance(d, int) and d.value}
    vague = [(v, v.shape) for v in values if _is_vague(v, named)]
    for value, _ in vague:
        value.shape = None
    with _only_standard_ops(model), _computed_shapes(model):
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
    for value, shape in vague:
        value.shape = _clearer(shape, value.shape, named)
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
        for graph, said in outputs:
            for output, (tensor_type, shape) in zip(graph.outputs, said, strict=True):
                output.type, output.shape = tensor_type, shape


def _is_vague(value: ir.Value, named: Container[ir.SymbolicDim]) -> bool:
    """Whether the file says of an axis that it is of no size that an input has: a tool did not follow it."""
    node = value.producer()
    free = () if value.shape is None else [d for d in value.shape if not isinstance(d, int)]
    is_standard = node is not None and node.domain in {"", "ai.onnx"} and not value.is_graph_output()
    return is_standard and any(d not in named for d in free)


def _clearer(
    given: ir.Shape | None, found: ir.Shape | None, named: Container[ir.SymbolicDim]
) -> ir.Shape | None:
    """Each axis as it was found, if that is a size or one of an input, else as it was given."""
    if given is None or found is None or found.rank() != given.rank():
        return given
    return ir.Shape(
        b if isinstance(b, int) or (b in named and not isinstance(a, int)) else a
        for a, b in zip(given, found, strict=True)
    )


@contextmanager
def _computed_shapes(model: ir.Model) -> Iterator[None]:
    """Read opset 13 as 14, which means the same; only there a Reshape follows computed shapes."""
    opset = model.opset_imports.get("")
    if opset == _WITHOUT_COMPUTED_SHAPES:
        model.opset_imports[""] = opset + 1
    try:
        yield
    finally:
        if opset is not None:
            model.opset_imports[""] = opset


_WITHOUT_COMPUTED_SHAPES = 13
_LIKE_THEIR_INPUT = frozenset(
    {"BiasGelu", "FastGelu", "Gelu", "QuickGelu", "SimplifiedLayerNormalization"}
    | {"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"}
)


@contextmanager
def _only_standard_ops(model: ir.Model) -> Iterator[None]:
    """Put ops whose outputs have the same shapes in place of those that onnxruntime's optimiser makes.

    onnx does not know their shapes, and the optimiser writes none: everything behind them would have none.
    """
    changed: list[tuple[ir.Node, str, str, ir.Attr | None]] = []
    for node in model.graph.all_nodes():
        if node.domain not in {"", "com.microsoft"}:
            continue
        found = node.domain, node.op_type, node.attributes.get("equation")
        if (equation := _equation(node)) is not None:
            node.attributes["equation"] = ir.AttrString("equation", equation)
            node.domain, node.op_type = "", "Einsum"
        elif node.op_type in _LIKE_THEIR_INPUT and found[:2] != ("", "Gelu"):
            node.domain, node.op_type = "", "Identity"
        else:
            continue
        changed.append((node, *found))
    try:
        yield
    finally:
        for node, domain, op_type, given in changed:
            node.domain, node.op_type = domain, op_type
            node.attributes.pop("equation", None)
            if given is not None:
                node.attributes["equation"] = given


def _equation(node: ir.Node) -> str | None:
    """Of a FusedMatMul of matrices; onnx infers none with an ellipsis that only one of two operands fills."""
    a, b, *batches = (node.attributes.get_int(f"trans{flag}", 0) for flag in ("A", "B", "BatchA", "BatchB"))
    if node.op_type != "FusedMatMul" or len(node.inputs) != 2 or any(batches):
        return None
    more = ["" if v is None or (v.shape is not None and v.shape.rank() == 2) else "..." for v in node.inputs]
    return f"{more[0]}{'ki' if a else 'ik'},{more[-1]}{'jk' if b else 'kj'}->{max(more)}ij"
