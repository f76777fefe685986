"""The nodes between the input and the output of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from bitcc.passes._refused import Refused

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterator

    from bitcc.passes.constants import Constants
    from bitcc.passes.layer import Layer

HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def in_half_precision(layer: Layer, constants: Constants) -> bool:
    """Whether the original computes this layer, or a part of it, in float16 or bfloat16.

    A part, because onnxruntime's offline optimiser puts float32 nodes between Casts into such layers.
    """
    outputs = (value for node in back_from_y(layer, constants) for value in node.outputs)
    return not HALVES.isdisjoint({layer.x_type, layer.y_type, *(value.dtype for value in outputs)})


def back_from_y(layer: Layer, constants: Constants, ends: Container[ir.Value] = ()) -> Iterator[ir.Node]:
    """The nodes from y back to x that are not constant.

    Args:
        layer: Whose x and y.
        constants: Of the model.
        ends: Outputs of nodes that are given, but not gone past; there may be more of them at every step.
    """
    in_front = {layer.x, *layer.bases, *(copy.value for copy in layer.copies)}
    return (node for _, node in back_from(layer.y, in_front, constants, ends))


def back_from(
    y: ir.Value, seen: set[ir.Value], constants: Constants, ends: Container[ir.Value] = ()
) -> Iterator[tuple[ir.Value, ir.Node]]:
    """The values that y is made of, and their nodes, y first.

    Args:
        y: Where to begin.
        seen: Values that are left out, and what is in front of them; all that are found go there, and there
            may be others at every step.
        constants: Of the model; they are left out.
        ends: Values that are given, but not gone past; there may be more of them at every step.
    """
    stack = [y]
    while stack:
        value = stack.pop()
        node = value.producer()
        if node is None or value in seen or value in constants:
            continue
        seen.add(value)
        yield value, node
        if value not in ends:
            stack.extend(v for v in node.inputs if v is not None)


def between(
    layer: Layer, given: Collection[ir.Value], constants: Constants, *, loose: bool
) -> tuple[list[ir.Node], list[ir.Value]]:
    """(nodes, producers first; leaves) of the graph from x to y; if ``loose``, all constants are leaves.

    So are ``layer.bases`` and ``layer.copies``.
    """
    given = {*given, *layer.bases, *(copy.value for copy in layer.copies)}
    return nodes_between(layer.x, layer.y, given, constants, loose=loose)


def nodes_between(
    x: ir.Value, y: ir.Value, given: Container[ir.Value], constants: Constants, *, loose: bool
) -> tuple[list[ir.Node], list[ir.Value]]:
    """(nodes, producers first; leaves) of the graph from one value to another."""
    nodes: dict[ir.Node, None] = {}
    leaves: dict[ir.Value, None] = {}
    stack: list[tuple[ir.Value, bool]] = [(y, False)]
    while stack:
        value, inputs_done = stack.pop()
        node = value.producer()
        if inputs_done and node is not None:
            nodes[node] = None
            continue
        if value is x or value in leaves or node in nodes:
            continue
        constant = value in constants
        reduced = constant and (loose or (node is not None and node.op_type.startswith("Reduce")))
        if node is None and not constant and value not in given:
            raise Refused(
                "its nodes cannot be told apart from those in front of it",
                fix="let nothing behind the quantizer read what is in front of the tensor that it quantises",
            )
        if node is None or reduced or value in given:
            leaves[value] = None
        else:
            stack.append((value, True))
            stack.extend((v, False) for v in node.inputs if v is not None)
    return list(nodes), list(leaves)
