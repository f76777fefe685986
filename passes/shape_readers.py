"""Let nodes that read only the shape of a quantised tensor read that of the layer's input: it is the same.

TensorFlow writes a product over three axes as one over two, and gives its output the axes back that it reads
off the quantised tensor. That alone would keep the quantizer in the graph, and the norm in front of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitcc.passes.between import back_from_y

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

    from bitcc.passes.constants import Constants
    from bitcc.passes.layer import Layer

_ALIKE = frozenset(
    {"Abs", "Add", "Cast", "CastLike", "Clip", "Div", "Dropout", "Identity", "Max", "Min", "Mul"}
    | {"Neg", "Pow", "Reciprocal", "Round", "Sqrt", "Sub", "Where"}
)
"""Ops whose first output has the shape of their inputs, broadcast."""

_STANDARD = frozenset({"", "ai.onnx"})


def reads_shape(node: ir.Node) -> bool:
    """Whether a node reads nothing of a tensor but its shape."""
    return node.op_type == "Shape" and node.domain in _STANDARD


def read_shape_of(x: ir.Value, parts: Iterable[Layer], constants: Constants) -> None:
    """Let what reads the shape of a tensor that is quantised, or of the input itself, read that of ``x``.

    Args:
        x: What the op that replaces the layers reads, of the shape of what each of them does.
        parts: The layers as they were found.
        constants: Of the model.
    """
    for part in parts:
        nodes = _shapes_on_the_way(part, constants)
        nodes += [use.node for use in part.x.uses() if reads_shape(use.node) and part.x is not x]
        for node in nodes:
            node.replace_input_with(0, x)


def _shapes_on_the_way(layer: Layer, constants: Constants) -> list[ir.Node]:
    """The nodes that read the shape of what is computed between x and y, if it is that of x."""
    nodes = list(back_from_y(layer, constants))
    values = [node.outputs[0] for node in nodes]
    found = [(value, use.node) for value in values for use in value.uses() if reads_shape(use.node)]
    alike = _alike(layer, nodes[::-1], constants) if found else ()
    return [node for value, node in found if value in alike]


def _alike(layer: Layer, nodes: list[ir.Node], constants: Constants) -> set[ir.Value]:
    """The values with the shape of x."""
    within, whole = {layer.x}, {layer.x}  # broadcast to x, and with its shape

    def is_within(node: ir.Node) -> bool:
        inputs = [v for v in node.inputs if v is not None]
        if node.domain not in _STANDARD or not inputs or within.isdisjoint(inputs):
            return False
        if node.op_type.startswith("Reduce"):
            return inputs[0] in within and node.attributes.get_int("keepdims", 1) == 1
        fits = (v in within or _is_row(v, layer, constants) for v in inputs)
        return node.op_type in _ALIKE and all(fits)

    while added := [node for node in nodes if node.outputs[0] not in within and is_within(node)]:
        for node in added:
            within.add(node.outputs[0])
            if not node.op_type.startswith("Reduce") and not whole.isdisjoint(node.inputs):
                whole.add(node.outputs[0])
    return whole


def _is_row(value: ir.Value, layer: Layer, constants: Constants) -> bool:
    """Whether it is a constant that is broadcast to tokens of K columns: one number, or one for each."""
    if value not in constants or value.shape is None or not value.shape.is_static():
        return False
    sizes = value.shape.numpy()
    rank = 1 if layer.x.shape is None else layer.x.shape.rank()
    return len(sizes) <= rank and set(sizes[:-1]) <= {1} and sizes[-1:] in {(), (1,), (layer.op.K,)}
