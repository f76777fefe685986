"""Values that a graph computes more than once: some exporters write a copy for each consumer."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import onnx_ir as ir

from bitcc.passes.constants import NOT_A_FUNCTION

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

_LARGEST_TENSOR = 1 << 18  # bytes; gains of norms are smaller, and larger ones are not worth reading
_PLAIN = frozenset(
    {
        ir.AttributeType.FLOAT,
        ir.AttributeType.FLOATS,
        ir.AttributeType.INT,
        ir.AttributeType.INTS,
        ir.AttributeType.STRING,
        ir.AttributeType.STRINGS,
    }
)


def originals(graph: ir.Graph) -> Mapping[ir.Value, ir.Value]:
    """For each value of a graph and of the bodies in it the first one that is the same, bit for bit.

    Two values are the same if standard ops with equal attributes compute them from the same values;
    Identity is looked through, and small initializers are compared by content. What is not in the mapping
    is like nothing else.
    """
    found: dict[ir.Value, ir.Value] = {}
    _find(graph, {}, found)
    return found


def _find(
    graph: ir.Graph, first: dict[Hashable, tuple[ir.Value, ...]], found: dict[ir.Value, ir.Value]
) -> None:
    """Add the values of a graph; ``first`` are the computations so far that it sees."""
    for initializer in graph.initializers.values():
        content = None if initializer.is_graph_input() else _content(initializer.const_value)
        if content is not None:
            found[initializer] = first.setdefault(content, (initializer,))[0]
    for node in graph:
        if (inner := _inside_identity(node)) is not None:
            found[node.outputs[0]] = found.get(inner, inner)
        elif (computation := _computation(node, found)) is not None:
            same = first.setdefault(computation, tuple(node.outputs))
            found.update(zip(node.outputs, same, strict=True))
        for body in _bodies(node):
            _find(body, dict(first), found)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
            yield from attribute.as_graphs()


def _inside_identity(node: ir.Node) -> ir.Value | None:
    is_identity = node.op_type == "Identity" and node.domain == "" and len(node.outputs) == 1
    return node.inputs[0] if is_identity and len(node.inputs) == 1 else None


def _computation(node: ir.Node, found: Mapping[ir.Value, ir.Value]) -> Hashable | None:
    """What the outputs of a node depend on, None if they may differ each time."""
    if node.domain != "" or node.op_type in NOT_A_FUNCTION:
        return None
    attributes = {name: _attribute(value) for name, value in node.attributes.items()}
    if None in attributes.values():
        return None
    inputs = tuple(None if value is None else found.get(value, value) for value in node.inputs)
    return node.op_type, inputs, frozenset(attributes.items()), len(node.outputs)


def _attribute(attribute: ir.Attr) -> Hashable | None:
    if attribute.is_ref():
        return None
    if attribute.type == ir.AttributeType.TENSOR:
        return _content(attribute.value)
    return (attribute.type, repr(attribute.value)) if attribute.type in _PLAIN else None


def _content(tensor: ir.TensorProtocol | None) -> Hashable | None:
    if tensor is None or tensor.nbytes > _LARGEST_TENSOR or tensor.dtype == ir.DataType.STRING:
        return None
    return tensor.dtype, tuple(tensor.shape.numpy()), hashlib.sha256(tensor.tobytes()).digest()
