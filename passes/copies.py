"""Values that a graph computes more than once: some exporters write a copy for each consumer."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import onnx_ir as ir

from bitcc.passes.constants import NOT_A_FUNCTION
from bitcc.passes.layout import Layout, transposition

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from bitcc.passes.constants import Constants

_DEPTH = 12  # nodes behind one another, of two values that are compared
_MOST_VALUES = 1 << 14  # among which the copies of one are looked for
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


class Copy(NamedTuple):
    """A value of which something else is a Transpose, or the same.

    Attributes:
        value: The value.
        layout: What brings it to the other one.
    """

    value: ir.Value
    layout: Layout = ()


def copies_of(x: ir.Value, y: ir.Value, constants: Constants) -> tuple[Copy, ...]:
    """The values that ``y`` is made of and that are ``x`` computed once more, bit for bit.

    Of an ``x`` that a Transpose makes also what that is made of.
    """
    front, found = transposition(x), list[Copy]()
    wanted = [Copy(x), *([] if front is None else [Copy(*front)])]
    stack, seen = [y], {x}
    while stack and x.producer() is not None and len(seen) < _MOST_VALUES:
        value = stack.pop()
        if value in seen or value in constants:
            continue
        seen.add(value)
        copy = next((Copy(value, w.layout) for w in wanted if _is_computed_again(value, w.value)), None)
        if copy is not None:
            found.append(copy)
        elif (node := value.producer()) is not None:
            stack.extend(v for v in node.inputs if v is not None)
    return tuple(found)


def _is_computed_again(value: ir.Value, other: ir.Value) -> bool:
    """Whether two values are one, and not because of an Identity."""
    left, right = value.producer(), other.producer()
    if left is None or right is None or left.op_type != right.op_type:
        return value is other
    return _is_copy(value, other, _DEPTH, set())


def _is_copy(
    value: ir.Value | None, other: ir.Value | None, depth: int, known: set[tuple[ir.Value, ir.Value]]
) -> bool:
    """``known`` are pairs that were compared or are: one difference ends it all, so no pair is read twice."""
    if value is None or other is None:
        return value is other
    value, other = _behind_identities(value), _behind_identities(other)
    if value is other or (value, other) in known:
        return True
    left, right = value.producer(), other.producer()
    if left is None or right is None:
        content = None if left or right else _initial(value)
        return content is not None and content == _initial(other)
    function = _function(left) if depth and value.index() == other.index() else None
    if function is None or function != _function(right) or len(left.inputs) != len(right.inputs):
        return False
    known.add((value, other))
    inputs = zip(left.inputs, right.inputs, strict=True)
    return all(_is_copy(*pair, depth - 1, known) for pair in inputs)


def _behind_identities(value: ir.Value) -> ir.Value:
    while (node := value.producer()) is not None and (inner := _inside_identity(node)) is not None:
        value = inner
    return value


def _find(
    graph: ir.Graph, first: dict[Hashable, tuple[ir.Value, ...]], found: dict[ir.Value, ir.Value]
) -> None:
    """Add the values of a graph; ``first`` are the computations so far that it sees."""
    for initializer in graph.initializers.values():
        content = _initial(initializer)
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
    function = _function(node)
    inputs = tuple(None if value is None else found.get(value, value) for value in node.inputs)
    return None if function is None else (function, inputs)


def _function(node: ir.Node) -> Hashable | None:
    """What a node makes of its inputs, None if that may differ each time."""
    if node.domain != "" or node.op_type in NOT_A_FUNCTION:
        return None
    attributes = {name: _attribute(value) for name, value in node.attributes.items()}
    if None in attributes.values():
        return None
    return node.op_type, frozenset(attributes.items()), len(node.outputs)


def _attribute(attribute: ir.Attr) -> Hashable | None:
    if attribute.is_ref():
        return None
    if attribute.type == ir.AttributeType.TENSOR:
        return _content(attribute.value)
    return (attribute.type, repr(attribute.value)) if attribute.type in _PLAIN else None


def _initial(value: ir.Value) -> Hashable | None:
    """The content of an initializer; None for one that a caller may override, and any other value."""
    return None if value.is_graph_input() else _content(value.const_value)


def _content(tensor: ir.TensorProtocol | None) -> Hashable | None:
    if tensor is None or tensor.nbytes > _LARGEST_TENSOR or tensor.dtype == ir.DataType.STRING:
        return None
    return tensor.dtype, tuple(tensor.shape.numpy()), hashlib.sha256(tensor.tobytes()).digest()
