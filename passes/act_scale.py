"""Read in which order activations are scaled: by what, and how that is made of their largest magnitude."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx_ir as ir

from bitcc import ops
from bitcc.ops import ActScale
from bitcc.passes.bounds import clamped, guarded, zero_at_zero
from bitcc.passes.finite import numbers_of
from bitcc.passes.layout import before_token_shape
from bitcc.passes.normal_form import before_broadcast, inverted, operands, producer, same, skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bitcc.passes.constants import Constants


_BOUNDS = 2  # of a step, one behind the other


class Factor(NamedTuple):
    """One way to read a scale.

    Attributes:
        form: How it scales.
        qmax: What the largest magnitude maps to.
        largest: The largest magnitude, with its epsilon.
        base: ``largest``, or the step that is made of it.
        divisor: What takes ``base`` to the step: ``qmax``, or 1.
        floor: Of the largest magnitude, where the step has one.
        eps: What is added to the step.
        guarded: Whether something else stands for a step of zero.
    """

    form: ActScale
    qmax: float
    largest: ir.Value
    base: ir.Value
    divisor: float
    floor: float = 0.0
    eps: float = 0.0
    guarded: bool = False

    @classmethod
    def of(
        cls, form: ActScale, qmax: float | None, largest: ir.Value, constants: Constants
    ) -> Iterator[Factor]:
        """One whose step is ``largest / qmax``; none if that is no number."""
        if qmax is not None:
            c = before_broadcast(largest, constants)
            yield cls(form, qmax, c, c, qmax)


class Reading(NamedTuple):
    """One way to read what is rounded to codes.

    Attributes:
        x: What is scaled.
        scale: What it is multiplied with or divided by.
        factor: What that is.
    """

    x: ir.Value
    scale: ir.Value
    factor: Factor


def scalings(node: ir.Node, constants: Constants) -> tuple[tuple[ir.Value, ir.Value], ...]:
    """(what is scaled, by what) of a Mul or Div, or of a symmetric int8 quantizer whose scale is computed."""
    if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        return operands(node)
    x, scale, zero_point = (*node.inputs, None)[:3]
    codes = (node.inputs if node.op_type == "DequantizeLinear" else node.outputs)[0]
    is_int8 = codes is not None and codes.dtype == ir.DataType.INT8
    symmetric = zero_point is None or constants.scalar(zero_point) == 0
    if x is None or scale is None or scale in constants or not is_int8 or not symmetric:
        return ()
    return ((x, scale),)


def readings(node: ir.Node, constants: Constants) -> Iterator[Reading]:
    """Every way to read a product or quotient of activations and a scale."""
    divides = node.op_type != "Mul"
    for x, given in scalings(node, constants):
        scale = numbers_of(before_token_shape(given, x, constants), constants)
        for factor in (_divisors if divides else _factors)(scale, constants):
            yield Reading(x, given, factor)
        yield from _in_two_steps(x, given, constants, divides=divides)


def _factors(scale: ir.Value, constants: Constants) -> Iterator[Factor]:
    """What x is multiplied with:  qmax * (1 / c),  qmax / c,  or  1 / (c / qmax)."""
    node = producer(scale, "Mul", "Div")
    for first, second in () if node is None else operands(node):
        if node is not None and node.op_type == "Div":
            yield from Factor.of(ActScale.DIVIDE, constants.scalar(first), second, constants)
        elif (largest := inverted(skip(first, constants), constants)) is not None:
            yield from Factor.of(ActScale.RECIPROCAL, constants.scalar(second), largest, constants)
    step = inverted(scale, constants)
    for factor in () if step is None else _divisors(before_broadcast(step, constants), constants):
        if factor.form is ActScale.QUOTIENT:
            yield factor._replace(form=ActScale.STEP_RECIPROCAL)


def _divisors(step: ir.Value, constants: Constants, bounds: int = _BOUNDS) -> Iterator[Factor]:
    """What x is divided by: a step, with so many bounds at most, or a step and an epsilon."""
    yield from _steps(step, constants)
    add = producer(step, "Add")
    for inner, number in () if add is None else operands(add):
        eps = constants.scalar(number) or 0.0
        for factor in _steps(skip(inner, constants), constants) if eps else ():
            if factor.form is ActScale.QUOTIENT:
                yield factor._replace(form=ActScale.STEP_SUM, base=step, divisor=1.0, eps=eps)
    if bounds:
        yield from _bounded(step, constants, bounds - 1)


def _steps(step: ir.Value, constants: Constants) -> Iterator[Factor]:
    """``c / qmax``  or  ``c * (1 / qmax)``."""
    node = producer(step, "Mul", "Div")
    for largest, other in () if node is None else operands(node):
        number = constants.scalar(other)
        if node is not None and node.op_type == "Div":
            yield from Factor.of(ActScale.QUOTIENT, number, largest, constants)
        elif number:
            yield from Factor.of(ActScale.STEP_PRODUCT, _with_inverse(number), largest, constants)


def _bounded(step: ir.Value, constants: Constants, bounds: int) -> Iterator[Factor]:
    """A step with a floor, or with something else in the place of zero."""
    clamp, guard = clamped(step, constants), guarded(step, constants)
    kept = None if guard is None else before_broadcast(guard.value, constants)
    for factor in () if kept is None else _divisors(kept, constants, bounds):
        zero_together = () if guard is None else (guard.value, factor.largest)
        if guard is not None and any(same(guard.tested, v, constants) for v in zero_together):
            yield factor._replace(base=step, divisor=1.0, guarded=True)
    if clamp is None or clamp.low is None or clamp.high is not None:
        return
    for factor in _divisors(skip(clamp.value, constants), constants, bounds):
        floor = _floor_of(clamp.low, factor)
        if floor is not None:
            yield factor._replace(base=step, divisor=1.0, floor=max(factor.floor, floor))


def _in_two_steps(x: ir.Value, given: ir.Value, constants: Constants, *, divides: bool) -> Iterator[Reading]:
    """(v * qmax) / c  or  (v / c) * qmax, where v / c may be zero for a c of zero."""
    guard = None if divides else zero_at_zero(skip(x, constants), constants)
    node = producer(numbers_of(x if guard is None else guard.value, constants), "Mul" if divides else "Div")
    for v, other in () if node is None else operands(node):
        number, largest = (other, given) if divides else (given, other)
        if guard is not None and not same(guard.tested, largest, constants):
            continue
        form = ActScale.PRODUCT if divides else ActScale.NORMALIZED
        for factor in Factor.of(form, constants.scalar(number), largest, constants):
            yield Reading(v, largest, factor._replace(guarded=guard is not None))


@functools.cache
def least_floor(form: ActScale, qmax: float) -> float:
    """The smallest maximum that has a scale, for a floor where something else stands for a maximum of zero.

    Tokens of zeros have codes of zero whatever that is. Smaller ones than this, below 2^-120, have a scale of
    infinity or a step of zero in the graph too.
    """
    op = ops.BitLinear(K=1, N=1, act_scale=form, qmax=qmax)
    below, floor = 0, int(_ONE.view(np.uint32))
    while floor - below > 1:
        middle = (below + floor) // 2
        made = replace(op, act_floor=float(np.uint32(middle).view(np.float32)))
        _, inverse = ops.quantize(np.zeros((1, 1), np.float32), made)
        below, floor = (below, middle) if np.isfinite(inverse).all() else (middle, floor)
    return float(np.uint32(floor).view(np.float32))


_ONE = np.float32(1)


def _with_inverse(number: float) -> float | None:
    """The qmax whose inverse is a number, in float32."""
    with np.errstate(all="ignore"):
        inverse = _ONE / np.float32(number)
        return next((float(q) for q in (np.rint(inverse), *_near(inverse)) if _ONE / q == number), None)


def _floor_of(step: float, factor: Factor) -> float | None:
    """The c of which a step is made, in float32: no larger one has a smaller step."""
    qmax, eps = np.float32(factor.qmax), np.float32(factor.eps)
    with np.errstate(all="ignore"):
        for c in _near((np.float32(step) - eps) * qmax):
            made = c * (_ONE / qmax) if factor.form is ActScale.STEP_PRODUCT else c / qmax
            if made + eps == np.float32(step) and c >= 0:
                return float(c)
    return None


def _near(value: np.float32) -> tuple[np.float32, np.float32, np.float32]:
    """The value and its two neighbours."""
    return value, np.nextafter(value, np.float32(np.inf)), np.nextafter(value, np.float32(0))
