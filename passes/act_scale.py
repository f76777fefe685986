"""Read in which order activations are scaled: by what, and how that is made of their largest magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx_ir as ir

from bitcc.ops import ActScale
from bitcc.passes.normal_form import before_broadcast, clamped, inverted, operands, producer, skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bitcc.passes.constants import Constants


class Reading(NamedTuple):
    """One way to read what is rounded to codes.

    Attributes:
        x: What is scaled.
        scale: What it is multiplied with or divided by.
        form: How.
        qmax: What the largest magnitude maps to.
        largest: The largest magnitude, with its epsilon.
        base: ``largest``, or the step that is made of it.
        divisor: What takes ``base`` to the step: ``qmax``, or 1.
        floor: Of the largest magnitude, where the step has one.
    """

    x: ir.Value
    scale: ir.Value
    form: ActScale
    qmax: float
    largest: ir.Value
    base: ir.Value
    divisor: float
    floor: float = 0.0


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
        scale = before_broadcast(given, constants)
        forms = [(x, *form) for form in _forms(scale, constants, divides=divides)]
        product = producer(skip(x, constants), "Mul") if divides else None
        if product is not None:
            forms += [(v, ActScale.PRODUCT, number, scale) for v, number in operands(product)]
        for v, form, number, largest in forms:
            qmax = constants.scalar(number)
            if qmax is not None:
                base = before_broadcast(largest, constants)
                yield Reading(v, given, form, qmax, base, base, qmax)
        if divides:
            yield from _step_with_a_floor(x, given, scale, constants)


def _forms(
    scale: ir.Value, constants: Constants, *, divides: bool
) -> Iterator[tuple[ActScale, ir.Value, ir.Value]]:
    """(form, qmax, c) of a scale of its own."""
    node = producer(scale, "Mul", "Div")
    for first, second in () if node is None else operands(node):
        if node is not None and node.op_type == "Div":
            yield (ActScale.QUOTIENT, second, first) if divides else (ActScale.DIVIDE, first, second)
        elif not divides and (largest := inverted(skip(first, constants), constants)) is not None:
            yield ActScale.RECIPROCAL, second, largest


def _step_with_a_floor(
    x: ir.Value, given: ir.Value, step: ir.Value, constants: Constants
) -> Iterator[Reading]:
    """X / max(c / qmax, floor)."""
    bounds = clamped(step, constants)
    quotient = None if bounds is None else producer(skip(bounds.value, constants), "Div")
    if bounds is None or bounds.low is None or bounds.high is not None or quotient is None:
        return
    for largest, number in operands(quotient):
        qmax = constants.scalar(number)
        floor = None if not qmax else _floor_of(bounds.low, qmax)
        if qmax is not None and floor is not None:
            c = before_broadcast(largest, constants)
            yield Reading(x, given, ActScale.QUOTIENT, qmax, c, step, 1.0, floor)


def _floor_of(step: float, qmax: float) -> float | None:
    """The c whose quotient by ``qmax`` is a step, in float32: larger ones have no smaller quotients."""
    with np.errstate(all="ignore"):
        near = np.float32(step) * np.float32(qmax)
        for c in (near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(0))):
            if c / np.float32(qmax) == np.float32(step):
                return float(c)
    return None
