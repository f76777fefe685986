"""Look through what exporters add and optimisers rearrange: one spelling for the matchers to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from bitcc.passes.constants import Constants

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
_SAME_DEPTH = 12  # deeper than any quantizer; bounds the comparison of two copies of one


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node of one of these standard op types that makes the value, else None."""
    node = None if value is None else value.producer()
    if node is None or node.op_type not in op_types or node.domain not in {"", "ai.onnx"}:
        return None
    return node


def operands(node: ir.Node) -> tuple[tuple[ir.Value, ir.Value], ...]:
    """The two inputs of a binary node; both orders if it commutes, none if one is missing."""
    if len(node.inputs) != 2:
        return ()
    first, second = node.inputs
    if first is None or second is None:
        return ()
    commutes = node.op_type in {"Add", "Mul", "Min", "Max"}
    return ((first, second), (second, first)) if commutes else ((first, second),)


def skip(value: ir.Value, constants: Constants, *, rounds: bool = True) -> ir.Value:
    """The value behind Identity, float-to-float Cast, Dropout, times or by one, and moves that move nothing.

    Args:
        value: What to look behind.
        constants: Of the model.
        rounds: Also behind Casts that round to a narrower type.
    """
    while True:
        inner = _transparent(value, constants)
        if inner is None or not (rounds or _holds(value, inner)):
            return value
        value = inner


def _holds(value: ir.Value, inner: ir.Value) -> bool:
    """Whether a Cast of one to the other loses nothing."""
    wide, narrow = value.dtype, inner.dtype
    return wide == narrow or (wide in _WIDTH and narrow in _WIDTH and _WIDTH[wide] > _WIDTH[narrow])


_WIDTH = {
    ir.DataType.BFLOAT16: 16,
    ir.DataType.FLOAT16: 16,
    ir.DataType.FLOAT: 32,
    ir.DataType.DOUBLE: 64,
}


def before_widening(value: ir.Value) -> ir.Value:
    """The value behind Identity and Casts that lose nothing: the narrowest tensor with the same numbers."""
    while (node := producer(value, "Identity", "Cast")) is not None and node.inputs[0] is not None:
        inner = node.inputs[0]
        if node.op_type == "Cast":
            to = ir.DataType(node.attributes.get_int("to", 0))
            if inner.dtype not in _WIDTH or to not in _WIDTH:
                return value
            if inner.dtype != to and _WIDTH[inner.dtype] >= _WIDTH[to]:
                return value
        value = inner
    return value


def _transparent(value: ir.Value, constants: Constants) -> ir.Value | None:
    node = producer(value, *_TRANSPARENT)
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type == "Dropout":
        return node.inputs[0] if value.index() == 0 and _is_inference(node, constants) else None
    if node.op_type in {"Identity", "Slice", "Transpose"}:
        return node.inputs[0] if _moves_nothing(node, constants) else None
    if node.op_type in {"Cast", "CastLike"}:
        return node.inputs[0] if _is_of_floats(node, value) else None
    return next((v for v, one in operands(node) if constants.scalar(one) == 1.0), None)


_TRANSPARENT = ("Identity", "Cast", "CastLike", "Dropout", "Slice", "Transpose", "Mul", "Div")


def _is_of_floats(node: ir.Node, value: ir.Value) -> bool:
    """Whether a Cast or CastLike makes floats of floats."""
    given = None if node.inputs[0] is None else node.inputs[0].dtype
    if node.op_type == "CastLike":
        return {value.dtype, given} <= FLOATS
    return ir.DataType(node.attributes.get_int("to", 0)) in FLOATS and (given is None or given in FLOATS)


def _moves_nothing(node: ir.Node, constants: Constants) -> bool:
    """Whether an Identity, Slice or Transpose leaves everything where it is."""
    if node.op_type == "Transpose":
        perm = node.attributes.get_ints("perm")
        return perm is not None and list(perm) == sorted(perm)
    return node.op_type == "Identity" or _takes_all(node, constants)


def _takes_all(node: ir.Node, constants: Constants) -> bool:
    """Whether a Slice begins at the start of its axes, and ends where no tensor does, as ``x[..., None]``."""
    if len(node.inputs) < len(_SLICE) - 1:  # as before opset 10
        return False
    given = {k: v for k, v in zip(_SLICE, node.inputs[1:], strict=False) if v is not None and k != "axes"}
    if any(v not in constants for v in given.values()):
        return False
    numbers = {name: constants.array(v) for name, v in given.items()}
    steps = numbers.get("steps", np.ones(1))
    return bool((numbers["starts"] == 0).all() and (numbers["ends"] >= _BEYOND).all() and (steps == 1).all())


_SLICE = ("starts", "ends", "axes", "steps")
_BEYOND = 10**9  # TensorFlow's; torch writes the largest int64


def _is_inference(dropout: ir.Node, constants: Constants) -> bool:
    """Whether it drops nothing."""
    training = dropout.inputs[2] if len(dropout.inputs) > 2 else None
    return training is None or constants.scalar(training) == 0


def same(a: ir.Value | None, b: ir.Value | None, constants: Constants) -> bool:
    """Whether two values are one, or computed the same way from the same values."""
    return _same(a, b, constants, _SAME_DEPTH, set())


def _same(
    a: ir.Value | None,
    b: ir.Value | None,
    constants: Constants,
    depth: int,
    known: set[tuple[ir.Value, ir.Value]],
) -> bool:
    """``known`` are pairs that were compared or are: one difference ends it all, so no pair is read twice."""
    if a is None or b is None:
        return a is b
    a, b = skip(a, constants), skip(b, constants)
    if a is b or (a, b) in known:
        return True
    left, right = a.producer(), b.producer()
    if left is None or right is None:
        number = constants.scalar(a)
        return number is not None and number == constants.scalar(b)
    if depth == 0 or left.op_identifier() != right.op_identifier() or a.index() != b.index():
        return False
    if len(left.inputs) != len(right.inputs) or not _same_attributes(left, right):
        return False
    known.add((a, b))
    inputs = zip(left.inputs, right.inputs, strict=True)
    return all(_same(x, y, constants, depth - 1, known) for x, y in inputs)


def _same_attributes(left: ir.Node, right: ir.Node) -> bool:
    if left.attributes.keys() != right.attributes.keys():
        return False
    return all(_same_attribute(left.attributes[k], right.attributes[k]) for k in left.attributes)


def _same_attribute(left: ir.Attr, right: ir.Attr) -> bool:
    if left.type != right.type:
        return False
    if left.type == ir.AttributeType.TENSOR:
        return bool(left.value.dtype == right.value.dtype and left.value.tobytes() == right.value.tobytes())
    return bool(left.value == right.value)


def without_residue(value: ir.Value, constants: Constants, *, rounds: bool = True) -> ir.Value | None:
    """Q for ``v + (Q - v)``, ``v - (v - Q)`` or ``(Q + v) - v``; None for anything else.

    These are the straight-through estimators of training.

    Args:
        value: What to look behind.
        constants: Of the model.
        rounds: Whether Q is what is behind Casts that round it to a narrower type.
    """
    found = _residue(value, constants)
    return None if found is None else skip(found[0], constants, rounds=rounds)


def base_of_residue(value: ir.Value, constants: Constants) -> ir.Value | None:
    """The v of the same."""
    found = _residue(value, constants)
    return None if found is None else found[1]


def _residue(value: ir.Value, constants: Constants) -> tuple[ir.Value, ir.Value] | None:
    """(Q, v)."""
    node = producer(value, "Add", "Sub")
    if node is not None and node.op_type == "Sub":
        return _subtracted_residue(node, constants)
    for kept, other in () if node is None else operands(node):
        difference = producer(skip(other, constants), "Sub")
        if difference is None or difference.inputs[0] is None:
            continue
        if same(difference.inputs[1], kept, constants):
            return difference.inputs[0], kept
    return None


def _subtracted_residue(node: ir.Node, constants: Constants) -> tuple[ir.Value, ir.Value] | None:
    for first, second in operands(node):
        difference, total = producer(skip(second, constants), "Sub"), producer(skip(first, constants), "Add")
        for kept, q in () if difference is None else operands(difference):
            if same(kept, first, constants):
                return q, first
        for kept, q in () if total is None else operands(total):
            if same(kept, second, constants):
                return q, second
    return None


def inverted(value: ir.Value, constants: Constants) -> ir.Value | None:
    """The v of ``1 / v``, None for anything else.

    Also of ``v ** -1``, which onnxruntime rounds to another last place for one number in 1700.
    """
    node = producer(value, "Reciprocal", "Div", "Pow")
    if node is None:
        return None
    first, last = node.inputs[0], node.inputs[-1]
    if node.op_type == "Pow":
        first, last = last, first
    required = {"Div": 1.0, "Pow": -1.0}.get(node.op_type)
    if last is None or (required is not None and constants.scalar(first) != required):
        return None
    return skip(last, constants)


def before_broadcast(value: ir.Value, constants: Constants) -> ir.Value:
    """The value behind what gives it the axes of a tensor: Expand, Unsqueeze of a last axis, Tile of that."""
    value = skip(value, constants)
    while (node := producer(value, "Expand", "Tile", "Unsqueeze")) is not None and node.inputs[0] is not None:
        if node.op_type == "Unsqueeze" and not adds_last_axis(node, constants):
            break
        if node.op_type == "Tile" and not _repeats_columns(node.inputs[0], node.inputs[1], constants):
            break
        value = skip(node.inputs[0], constants)
    return value


def _repeats_columns(inner: ir.Value, repeats: ir.Value | None, constants: Constants) -> bool:
    """Whether a Tile repeats only the last axis, and that is one."""
    if inner.shape is None or not inner.shape.rank() or inner.shape[-1] != 1 or repeats not in constants:
        return False
    return repeats is not None and bool((constants.array(repeats).reshape(-1)[:-1] == 1).all())


def adds_last_axis(node: ir.Node, constants: Constants) -> bool:
    """Whether an Unsqueeze appends one axis."""
    axes = list(node.attributes.get_ints("axes") or ())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axis = constants.scalar(node.inputs[1])
        axes = [] if axis is None else [int(axis)]
    inner = None if node.inputs[0] is None else node.inputs[0].shape
    return axes == [-1] or (inner is not None and axes == [inner.rank()])
