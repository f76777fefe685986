"""Read activation codes, and what they are multiplied by and reshaped to before a product reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bitcc.passes.act_scale import scalings
from bitcc.passes.bounds import Clamped, clamped, without_zero
from bitcc.passes.finite import numbers_of
from bitcc.passes.layout import RESHAPES
from bitcc.passes.normal_form import producer, without_residue

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from bitcc.passes.constants import Constants

INT8_RANGE = (-128.0, 127.0)
_ROUND = frozenset({"Ceil", "Floor", "Round"})
_KEEP_CODES = frozenset(
    {"Add", "Cast", "Clip", "Concat", "Div", "Expand", "Flatten", "Identity", "Max", "Min", "Mul", "Neg"}
    | {"Reshape", "Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"}
)
_MOST_BEHIND_ROUND = 32  # values
_FACTORS = 3  # that codes are multiplied by, one after the other
_FLOAT32 = 2.0**-23


class CodeFactor(NamedTuple):
    """What a tensor of codes is multiplied by.

    Attributes:
        value: The factor.
        power: 1, or -1 for a divisor.
        codes: The tensor.
        is_reshaped: Whether that has been given another shape.
    """

    value: ir.Value
    power: int
    codes: ir.Value
    is_reshaped: bool


class Codes(NamedTuple):
    """Codes, and what they are multiplied by and reshaped to, first to last."""

    codes: ir.Value
    factors: tuple[CodeFactor, ...] = ()
    reshapes: tuple[ir.Node, ...] = ()


def read_codes(value: ir.Value, k: int | None, constants: Constants, depth: int = _FACTORS) -> Codes | None:
    """The codes that a value is made of, None without codes; ``k`` columns if they may be reshaped."""
    if rounded(value, constants) is not None:
        return Codes(value)
    value = numbers_of(value, constants)
    reshape = producer(value, *RESHAPES)
    if reshape is not None and (inner := reshape.inputs[0]) is not None and k and last_dim(inner) == k:
        found = read_codes(inner, k, constants, depth)
        return None if found is None else found._replace(reshapes=(*found.reshapes, reshape))
    node = producer(without_residue(value, constants) or value, "Mul", "Div", "DequantizeLinear")
    for inner, factor in () if node is None or not depth else scalings(node, constants):
        found = read_codes(inner, k, constants, depth - 1)
        if node is not None and found is not None:
            power = -1 if node.op_type == "Div" else 1
            last = CodeFactor(factor, power, inner, bool(found.reshapes))
            return found._replace(factors=(*found.factors, last))
    return None


def rounded(value: ir.Value | None, constants: Constants) -> tuple[ir.Value, float, float] | None:
    """(v, low, high) where value = clamp(round(v), low, high), in any order, behind integer Casts.

    Of a QuantizeLinear, which divides as well, v is its output.
    """
    if value is None:
        return None
    low, high = -np.inf, np.inf
    value = skip_codes(value, constants)
    while (bounds := clamped(value, constants)) is not None:
        low, high = _within(bounds, _near, low, high)
        value = skip_codes(bounds.value, constants)
    if (node := producer(value, "QuantizeLinear")) is not None and list(scalings(node, constants)):
        return value, max(low, INT8_RANGE[0]), min(high, INT8_RANGE[1])
    node = producer(value, "Round")
    if node is None or node.inputs[0] is None:
        return None
    value = numbers_of(node.inputs[0], constants)
    value = without_zero(value, constants) or value
    while (bounds := clamped(value, constants)) is not None:
        low, high = _within(bounds, np.rint, low, high)  # as the code there is rounded
        value = numbers_of(bounds.value, constants)
    return value, low, high


def _within(
    bounds: Clamped, rounded: Callable[[float], float], low: float, high: float
) -> tuple[float, float]:
    """Two bounds of codes within those of a clamp, which are rounded."""
    if bounds.low is not None:
        low = max(low, float(rounded(bounds.low)))
    if bounds.high is not None:
        high = min(high, float(rounded(bounds.high)))
    return low, high


def _near(bound: float) -> float:
    """A bound of codes: BitNet's first version takes an epsilon off, as little as float32 rounds products."""
    nearest = float(np.rint(bound))
    return nearest if np.isfinite(bound) and abs(bound - nearest) <= _FLOAT32 * abs(nearest) else bound


def skip_codes(value: ir.Value, constants: Constants) -> ir.Value:
    """The codes behind a straight-through residue, a zero point of zero, and Casts to integers and back."""
    while True:
        inner = without_residue(value, constants) or without_zero(value, constants)
        if inner is None and (node := producer(value, "Cast")) is not None:
            inner = node.inputs[0]
        if inner is None:
            inner = numbers_of(value, constants)
        if inner is value:
            return value
        value = inner


def rounding_in_front(value: ir.Value, constants: Constants) -> ir.Node | None:
    """The node that rounds what a value is made of by arithmetic and moves of elements; None without one."""
    seen: set[ir.Value] = set()
    stack = [value]
    while stack and len(seen) < _MOST_BEHIND_ROUND:
        value = stack.pop()
        node = value.producer()
        if node is None or value in seen or value in constants or node.domain not in {"", "ai.onnx"}:
            continue
        seen.add(value)
        if node.op_type in _ROUND:
            return node
        if node.op_type in _KEEP_CODES:
            stack.extend(v for v in node.inputs if v is not None)
    return None


def last_dim(value: ir.Value) -> int | None:
    """The size of the last axis, None if it is not known."""
    last = value.shape[-1] if value.shape is not None and value.shape.rank() else None
    return last if isinstance(last, int) else None
