"""Recognise the activation quantizer of BitNet b1.58: absmax to int8, per token or per tensor.

    c = clamp(max|x|, min=floor) or max|x| + eps       over the last axis, or over all
    v = x * (qmax * (1 / c))   or another order of the same (bitcc.ops.ActScale)
    q = clamp(round_half_even(v), low, high)            then q itself, or q * c / qmax

The arithmetic is reproduced operation by operation, since one unit in the last place of the scale can
move a code. Source: arXiv 2402.17764 and "The Era of 1-bit LLMs: Training Tips, Code and FAQ".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bitcc.passes import qonnx
from bitcc.passes._refused import Refused
from bitcc.passes.absmax import read_absmax
from bitcc.passes.act_scale import least_floor, readings, scalings
from bitcc.passes.bounds import Clamped, clamped, without_zero
from bitcc.passes.layout import RESHAPES, before_token_shape
from bitcc.passes.normal_form import before_widening, producer, skip, without_residue
from bitcc.passes.scales import ONE, read_factor

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.ops import ActScale, ActScope
    from bitcc.passes.constants import Constants

_INT8_RANGE = (-128.0, 127.0)
_MAX_EPS = 1e30  # what the op library reads
_UNKNOWN_FORM = "the activation scale has no known form"
_FORM = "compute the scale as 127 / max|x| and multiply by it, or as max|x| / 127 and divide by it"
_FACTORS = 3  # that codes are multiplied by, one after the other
_FLOAT32 = 2.0**-23


@dataclass(frozen=True)
class Activation:
    """A matched activation quantizer.

    Attributes:
        x: What is quantised, [..., K].
        largest: ``c``, or the step ``c / qmax``; [..., 1], or one number for the tensor.
        divisor: ``qmax``, or 1: what takes ``largest`` to the step.
        dropped: Whether ``largest`` has no axis for the columns.
        form: How the scale is computed and applied.
        scope: What has a scale of its own.
        floor: Lower bound of max|x|.
        eps: What is added to max|x|.
        qmax: 127 or 128.
        low: Lower clamp bound of the codes.
        high: Upper clamp bound of the codes.
        codes: The codes, [..., K].
        dequantised: Whether the codes are multiplied by ``c / qmax`` before they are used.
        gain: 1, or a constant that they are multiplied by as well.
        reshapes: The nodes that give the quantised tensor another shape before it is multiplied, first to
            last; its rows of K stay what they are.
    """

    x: ir.Value
    largest: ir.Value
    divisor: float
    dropped: bool
    form: ActScale
    scope: ActScope
    floor: float
    eps: float
    qmax: float
    low: float
    high: float
    codes: ir.Value
    dequantised: bool = False
    reshapes: tuple[ir.Node, ...] = ()
    gain: float = 1.0

    def meets(self, scale: ir.Value, tensor: ir.Value) -> bool:
        """Whether a factor made of ``largest`` has the axes of a tensor with the tokens of ``x``."""
        ranks = {None if v.shape is None else v.shape.rank() for v in (scale, tensor)}
        return not self.dropped or (len(ranks) == 1 and None not in ranks)


def match_activation(value: ir.Value, k: int, constants: Constants, axis: int = -1) -> Activation:
    """Match the quantizer that ends in ``value``, the data input of a product with K columns.

    Args:
        value: The data input.
        k: Columns of the weight.
        constants: Of the model.
        axis: The axis of K in ``value``, counted from the end.

    Raises:
        Refused: there is none, or it is one that the op does not compute.
    """
    value = skip(value, constants)
    reshape = producer(value, *RESHAPES)
    inner = None if reshape is None or axis != -1 else reshape.inputs[0]
    if reshape is not None and inner is not None and _last_dim(inner) == k:
        quantizer = match_activation(inner, k, constants)
        return replace(quantizer, reshapes=(*quantizer.reshapes, reshape))
    value = without_residue(value, constants) or value
    if (found := _codes_and_factors(value, constants)) is None:
        raise _no_codes(value, constants)
    codes, factors = found
    if not factors:
        return _quantizer(codes, constants, axis)
    return _dequantised(codes, factors, constants, axis)


def _no_codes(value: ir.Value, constants: Constants) -> Refused:
    """Why a value has no codes that are read."""
    node = value.producer()
    if node is None or not (qonnx.is_quantizer(node) or producer(value, "DequantizeLinear") is node):
        return Refused(
            "there is no activation quantizer in front of it",
            fix="if it was trained with one, export it in eval mode with the quantizer in the graph",
        )
    if len(node.inputs) > 1 and node.inputs[1] not in constants:
        return Refused(
            "its activation quantizer has a zero point, or codes that are not int8",
            fix="for integer kernels, quantise symmetrically to int8, as BitNet b1.58 does",
        )
    return Refused(
        "the scale of its activation quantizer is fixed, and not that of a token or a tensor",
        fix="for integer kernels, scale by the largest magnitude, as BitNet b1.58 does",
    )


def _last_dim(value: ir.Value) -> int | None:
    last = value.shape[-1] if value.shape is not None and value.shape.rank() else None
    return last if isinstance(last, int) else None


_Factors: TypeAlias = "tuple[tuple[ir.Value, int], ...]"


def _codes_and_factors(
    value: ir.Value, constants: Constants, depth: int = _FACTORS
) -> tuple[ir.Value, _Factors] | None:
    """(codes, what they are multiplied by, with the power 1 or -1), None without codes."""
    if _rounded(value, constants) is not None:
        return value, ()
    value = skip(value, constants)
    node = producer(without_residue(value, constants) or value, "Mul", "Div", "DequantizeLinear")
    for inner, factor in () if node is None or not depth else scalings(node, constants):
        if node is not None and (found := _codes_and_factors(inner, constants, depth - 1)) is not None:
            codes, factors = found
            return codes, (*factors, (factor, -1 if node.op_type == "Div" else 1))
    return None


def _dequantised(codes: ir.Value, factors: _Factors, constants: Constants, axis: int) -> Activation:
    found = _quantizer(codes, constants, axis)

    def row(value: ir.Value) -> NDArray[np.float64] | None:
        number = constants.scalar(value)
        return None if number is None else np.array([number])

    product = ONE
    def within(value: ir.Value) -> ir.Value:
        return before_token_shape(value, found.x, constants)

    for value, power in factors:
        factor = read_factor(value, found.largest, constants, row, within=within)
        if factor is None or (factor.power and not found.meets(value, found.x)):
            raise _other_scale()
        product = product.times(factor, power)
    gain = float(product.constant[0])
    if product.power == 0:  # a constant alone: the scale is behind the product
        return replace(found, gain=gain)
    if product.power != 1:
        raise _other_scale()
    return replace(found, gain=gain * found.divisor, dequantised=True)


def _rounded(value: ir.Value | None, constants: Constants) -> tuple[ir.Value, float, float] | None:
    """(v, low, high) where value = clamp(round(v), low, high), in either order, behind integer Casts.

    Of a QuantizeLinear, which divides as well, v is its output.
    """
    if value is None:
        return None
    low, high = -np.inf, np.inf
    value = _skip_codes(value, constants)
    if (bounds := clamped(value, constants)) is not None:
        low, high = _whole(bounds, _near)
        value = _skip_codes(bounds.value, constants)
    if (node := producer(value, "QuantizeLinear")) is not None and list(scalings(node, constants)):
        return value, max(low, _INT8_RANGE[0]), min(high, _INT8_RANGE[1])
    node = producer(value, "Round")
    if node is None or node.inputs[0] is None:
        return None
    value = skip(node.inputs[0], constants)
    value = without_zero(value, constants) or value
    if bounds is None and (bounds := clamped(value, constants)) is not None:
        low, high = _whole(bounds, lambda bound: float(np.rint(bound)))  # as the code there is rounded
        value = skip(bounds.value, constants)
    return value, low, high


def _whole(bounds: Clamped, rounded: Callable[[float], float]) -> tuple[float, float]:
    low = -np.inf if bounds.low is None else bounds.low
    high = np.inf if bounds.high is None else bounds.high
    return rounded(low), rounded(high)


def _near(bound: float) -> float:
    """A bound of codes: BitNet's first version takes an epsilon off, as little as float32 rounds products."""
    nearest = float(np.rint(bound))
    return nearest if np.isfinite(bound) and abs(bound - nearest) <= _FLOAT32 * abs(nearest) else bound


def _skip_codes(value: ir.Value, constants: Constants) -> ir.Value:
    """The codes behind a straight-through residue, a zero point of zero, and Casts to integers and back."""
    while True:
        inner = without_residue(value, constants) or without_zero(value, constants)
        if inner is None and (node := producer(value, "Cast")) is not None:
            inner = node.inputs[0]
        if inner is None:
            inner = skip(value, constants)
        if inner is value:
            return value
        value = inner


def _quantizer(codes: ir.Value, constants: Constants, axis: int) -> Activation:
    """The quantizer of some codes, with nothing behind it."""
    rounded = _rounded(codes, constants)
    if rounded is None:
        raise Refused("the activations are not rounded to codes")
    scaled, low, high = rounded
    node = producer(scaled, "Mul", "Div", "QuantizeLinear")
    if node is None:
        raise Refused("the rounded activations are not a product of the input and its scale", fix=_FORM)
    refused = Refused(_UNKNOWN_FORM, fix=_FORM)
    for x, scale, factor in readings(node, constants):
        try:
            absmax = read_absmax(x, factor.largest, scale, constants, axis)
        except Refused as refusal:
            refused = refusal if refused.reason == _UNKNOWN_FORM else refused
            continue
        floor, eps = max(absmax.floor, factor.floor), absmax.eps or factor.eps
        if absmax.guarded or factor.guarded:
            floor = max(floor, least_floor(factor.form, factor.qmax))
        if absmax.eps and (factor.floor or factor.eps):  # in one order or the other
            continue
        low, high = _int8_range(factor.qmax, low, high)
        if floor < 0 or eps < 0:
            reason = f"the epsilon of the activation scale is negative ({min(floor, eps):g})"
            raise Refused(reason, fix="use one that is not")
        if not max(floor, eps) <= _MAX_EPS:
            reason = f"the epsilon of the activation scale is {max(floor, eps):g}, over {_MAX_EPS:g}"
            raise Refused(reason, fix="use a smaller one")
        return Activation(
            x=before_widening(x),
            largest=factor.base,
            divisor=factor.divisor,
            dropped=absmax.dropped,
            form=factor.form,
            scope=absmax.scope,
            floor=floor,
            eps=eps,
            qmax=factor.qmax,
            low=low,
            high=high,
            codes=_skip_codes(codes, constants),
        )
    raise refused


def _int8_range(qmax: float, low: float, high: float) -> tuple[float, float]:
    """The bounds of the codes; where there are none, those that no code reaches."""
    if np.isinf(low):
        low = _INT8_RANGE[0]
    if np.isinf(high) and qmax <= _INT8_RANGE[1]:
        high = _INT8_RANGE[1]
    integral = low.is_integer() and high.is_integer()
    if not integral or not _INT8_RANGE[0] <= low < high <= _INT8_RANGE[1] or not 1 <= qmax <= 128:
        raise Refused(
            f"the activation codes, clamp(x * {qmax:g} / max, {low:g}, {high:g}), are not int8",
            fix="clamp them to whole numbers from -128 to 127",
        )
    return low, high


def _other_scale() -> Refused:
    return Refused(
        "the activation codes are dequantised by another scale than they were quantised by",
        fix="divide the codes by the scale that the activations were multiplied by",
    )
