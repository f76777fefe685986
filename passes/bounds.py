"""Read bounds of a value: those of a clamp, and what keeps zero from being divided by."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx_ir as ir

from bitcc.passes.normal_form import FLOATS, adds_last_axis, operands, producer, same, skip

if TYPE_CHECKING:
    from bitcc.passes.constants import Constants

_ONE_BOUND = ("Min", "Max", "Where", "ScatterND")
_CASTS = ("Cast", "CastLike")
_COMPARISONS = {
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
}
_INTEGERS = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32, ir.DataType.INT64})
_LARGEST = float(np.finfo(np.float32).max)  # bounds that are no smaller are none
_MOST_FILLED = 1 << 16  # elements of a constant that is read for being one number


class Clamped(NamedTuple):
    """``min(max(value, low), high)``; a bound is None where the graph has none."""

    value: ir.Value
    low: float | None
    high: float | None


class Guarded(NamedTuple):
    """``value`` where ``tested`` is not zero, and elsewhere a number that may be divided by."""

    value: ir.Value
    tested: ir.Value


class _Selection(NamedTuple):
    """``where_true`` where the condition holds, else ``where_false``."""

    condition: ir.Value
    where_true: ir.Value
    where_false: ir.Value


def clamped(value: ir.Value, constants: Constants) -> Clamped | None:
    """``Clip``, or ``Min``, ``Max`` or a comparison in either order, with constant bounds; else None."""
    node = producer(value, "Clip", *_ONE_BOUND)
    if node is None:
        return None
    if node.op_type == "Clip":
        return _clip(node, constants)
    outer = _one_bound(node, constants)
    if outer is None:
        return None
    inner_node = producer(skip(outer.value, constants), *_ONE_BOUND)
    inner = None if inner_node is None else _one_bound(inner_node, constants)
    if inner is None or (inner.low is None) is (outer.low is None):
        return outer
    low = outer.low if inner.low is None else inner.low
    high = outer.high if inner.high is None else inner.high
    crossed = low is not None and high is not None and low > high
    return outer if crossed else Clamped(inner.value, low, _upper(high))


def _clip(node: ir.Node, constants: Constants) -> Clamped | None:
    if node.inputs[0] is None:
        return None
    bounds: list[float | None] = [
        node.attributes.get_float("min"),
        node.attributes.get_float("max"),
    ]
    for i, bound in enumerate(node.inputs[1:3]):
        if bound is not None:
            bounds[i] = constants.scalar(bound)
            if bounds[i] is None:
                return None
    low, high = bounds
    return Clamped(node.inputs[0], low, _upper(high))


def _upper(bound: float | None) -> float | None:
    """None also for a bound that no number is above."""
    return None if bound is not None and bound >= _LARGEST else bound


def _one_bound(node: ir.Node, constants: Constants) -> Clamped | None:
    if node.op_type in {"Where", "ScatterND"}:
        return _selected(node, constants)
    for value, bound in operands(node):
        number = filled_with(bound, constants)
        if number is not None and value not in constants:
            return Clamped(value, number, None) if node.op_type == "Max" else Clamped(value, None, number)
    return None


def _selected(node: ir.Node, constants: Constants) -> Clamped | None:
    """``Where(v > bound, v, bound)`` and its like: the larger or the smaller one."""
    selection = _selection(node, constants)
    found = None if selection is None else _comparison(selection.condition, constants)
    if selection is None or found is None:
        return None
    first, second = selection.where_true, selection.where_false
    compare, negated = found
    left, right = compare.inputs
    bound = filled_with(right, constants)
    value, is_greater = left, compare.op_type.startswith("Greater") is not negated
    if bound is None:
        bound, value, is_greater = filled_with(left, constants), right, not is_greater
    if bound is None or value is None or value in constants or compare.op_type == "Equal":
        return None
    if filled_with(first, constants) == bound and same(second, value, constants):
        is_greater = not is_greater
    elif filled_with(second, constants) != bound or not same(first, value, constants):
        return None
    return Clamped(value, bound, None) if is_greater else Clamped(value, None, bound)


def guarded(value: ir.Value, constants: Constants) -> Guarded | None:
    """``Where(v == 0, 1, v)`` and its like, for a ``tested`` that is not negative; None for anything else.

    Instead of 1 it may be any number but zero.
    """
    number, guard = _replaced_at_zero(value, constants)
    return guard if number and np.isfinite(number) else None


def zero_at_zero(value: ir.Value, constants: Constants) -> Guarded | None:
    """``Where(m == 0, 0, v)`` and its like, for an m that is not negative; None for anything else."""
    number, guard = _replaced_at_zero(value, constants)
    return guard if number == 0 else None


def _replaced_at_zero(value: ir.Value, constants: Constants) -> tuple[float | None, Guarded | None]:
    """(what stands for the value where something is zero, the rest), Nones where that cannot be told."""
    node = producer(value, "Where", "ScatterND")
    selection = None if node is None else _selection(node, constants)
    found = None if selection is None else _comparison(selection.condition, constants)
    if selection is None or found is None:
        return None, None
    first, second = selection.where_true, selection.where_false
    (compare, negated), test = found, _COMPARISONS[found[0].op_type]
    left, right = compare.inputs
    on_left = filled_with(right, constants) == 0
    tested = left if on_left else right
    if tested is None or (not on_left and filled_with(left, constants) != 0):
        return None, None
    of_zero, of_more = test(0, 0) is not negated, (test(1, 0) if on_left else test(0, 1)) is not negated
    instead, kept = (first, second) if of_zero else (second, first)
    if of_zero is of_more:
        return None, None
    return filled_with(instead, constants), Guarded(skip(kept, constants), tested)


def _selection(node: ir.Node, constants: Constants) -> _Selection | None:
    """What a Where selects, or a ScatterND of ``v[condition] = number``."""
    if len(node.inputs) != 3 or None in node.inputs:
        return None
    first, second, third = (v for v in node.inputs if v is not None)
    if node.op_type == "Where":
        return _Selection(first, second, third)
    transpose = producer(second, "Transpose")
    nonzero = None if transpose is None else producer(transpose.inputs[0], "NonZero")
    condition = None if nonzero is None else nonzero.inputs[0]
    expand = producer(condition, "Expand")  # to its own shape
    condition = condition if expand is None else expand.inputs[0]
    if condition is None or transpose is None or filled_with(third, constants) is None:
        return None
    by_columns = list(transpose.attributes.get_ints("perm") or (1, 0)) == [1, 0]
    replaces = node.attributes.get_string("reduction", "none") == "none"
    alike = (
        condition.shape is not None
        and first.shape is not None
        and condition.shape.rank() == first.shape.rank()
    )
    return _Selection(condition, third, first) if by_columns and replaces and alike else None


def _comparison(condition: ir.Value | None, constants: Constants) -> tuple[ir.Node, bool] | None:
    """(what is compared, whether the condition is that it does not hold)."""
    negated = False
    while (node := producer(condition, "Not", "Cast", "Identity", "Unsqueeze")) is not None:
        if node.op_type == "Unsqueeze" and not adds_last_axis(node, constants):
            break
        negated ^= node.op_type == "Not"
        condition = node.inputs[0]
    compare = producer(condition, *_COMPARISONS)
    return None if compare is None or len(compare.inputs) != 2 else (compare, negated)


def without_zero(value: ir.Value, constants: Constants) -> ir.Value | None:
    """The v of ``v + 0`` or ``v - 0``, as of a zero point of zero; None for anything else."""
    node = producer(value, "Add", "Sub")
    return (
        next((v for v, zero in operands(node) if filled_with(zero, constants) == 0), None) if node else None
    )


def filled_with(value: ir.Value | None, constants: Constants) -> float | None:
    """The number that all elements of a tensor are, whatever its shape; None for anything else."""
    rounded: list[ir.DataType | None] = []
    while value is not None and value not in constants:
        node = producer(value, "Identity", "Expand", "Reshape", "Unsqueeze", *_CASTS)
        if node is None:
            break
        if node.op_type in _CASTS:
            rounded.append(value.dtype)
        value = node.inputs[0]
    number = None if value is None else _filled_with(value, constants)
    for dtype in reversed(rounded):
        if number is None or (dtype not in FLOATS and (dtype not in _INTEGERS or number != 0)):
            return None
        number = float(np.asarray(number).astype(dtype.numpy()))
    return number


def _filled_with(value: ir.Value, constants: Constants) -> float | None:
    """The same of a constant, and of what fills a tensor with one."""
    if (number := constants.scalar(value)) is not None:
        return number
    if (node := producer(value, "ConstantOfShape")) is not None:
        attribute = node.attributes.get("value")
        return 0.0 if attribute is None else float(attribute.as_tensor().numpy().reshape(()))
    if value not in constants or value.shape is None or not value.shape.is_static():
        return None
    if not 0 < np.prod(value.shape.numpy()) <= _MOST_FILLED:
        return None
    array = constants.array(value).reshape(-1)
    return float(array[0]) if (array == array[0]).all() else None
