"""Recognise the activation quantizer of BitNet b1.58: absmax to int8, per token or per tensor.

    c = clamp(max|x|, min=floor) or max|x| + eps       over the last axis, or over all
    v = x * (qmax * (1 / c))   or another order of the same (bitcc.ops.ActScale)
    q = clamp(round_half_even(v), low, high)            then q itself, or q * c / qmax

The arithmetic is reproduced operation by operation, since one unit in the last place of the scale can
move a code. Source: arXiv 2402.17764 and "The Era of 1-bit LLMs: Training Tips, Code and FAQ".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from bitcc.passes._refused import Refused
from bitcc.passes.absmax import read_absmax
from bitcc.passes.act_codes import (
    INT8_RANGE,
    Codes,
    last_dim,
    read_codes,
    rounded,
    skip_codes,
)
from bitcc.passes.act_scale import least_floor, readings
from bitcc.passes.between import back_from
from bitcc.passes.finite import numbers_of, of_numbers
from bitcc.passes.layout import (
    RESHAPES,
    before_token_shape,
    is_of_tokens,
    rank_of,
    same_tokens,
    transposition,
)
from bitcc.passes.normal_form import before_widening, producer, skip, without_residue
from bitcc.passes.scales import ONE, read_factor
from bitcc.passes.unknown_quantizer import fixed_scale, no_codes, other_scale

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.ops import ActScale, ActScope
    from bitcc.passes.constants import Constants

_MOST_BETWEEN = 64  # nodes of a quantizer
_MAX_EPS = 1e30  # what the op library reads
_MOVED = "quantise behind the Transpose"
_UNKNOWN_FORM = "the activation scale has no known form"
_FORM = "compute the scale as 127 / max|x| and multiply by it, or as max|x| / 127 and divide by it"


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
            last; its rows of K stay what they are. The first may be a Transpose of the rows.
        restored: Whether the last of them gives it the shape of ``x`` back.
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
    restored: bool = False
    gain: float = 1.0

    def meets(self, scale: ir.Value, tensor: ir.Value) -> bool:
        """Whether a factor made of ``largest`` has the axes of a tensor with the tokens of ``x``."""
        axes = rank_of(scale)
        return not self.dropped or (axes is not None and axes == rank_of(tensor))


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
    value = numbers_of(value, constants)
    reshape = producer(value, *RESHAPES)
    inner = None if reshape is None or axis != -1 else reshape.inputs[0]
    if reshape is not None and inner is not None and last_dim(inner) == k:
        return _reshaped(_of_moved_tokens(inner, k, constants), reshape, k)
    value = without_residue(value, constants) or value
    if (found := read_codes(value, k if axis == -1 else None, constants)) is None:
        raise no_codes(value, constants)
    quantizer = _quantizer(found.codes, constants, axis)
    if found.factors:
        quantizer = _dequantised(quantizer, found, constants)
    if _replaces_infinities(value, quantizer.x, constants):
        least = least_floor(quantizer.form, quantizer.qmax)
        quantizer = replace(quantizer, floor=max(quantizer.floor, least))
    for node in found.reshapes:
        quantizer = _reshaped(quantizer, node, k)
    return quantizer


def _replaces_infinities(value: ir.Value, x: ir.Value, constants: Constants) -> bool:
    """Whether something else stands for NaN or infinity, which scales and codes of a zero token are."""
    nodes = islice(back_from(value, {x}, constants), _MOST_BETWEEN)
    return any(of_numbers(node, constants) is not None for _, node in nodes)


def _of_moved_tokens(value: ir.Value, k: int, constants: Constants) -> Activation:
    """The quantizer of tokens that a Transpose may bring in another order, before they are reshaped."""
    value = skip(value, constants)
    found = transposition(value)
    node = value.producer()
    if found is None or node is None or found[1][-1] != len(found[1]) - 1:
        return match_activation(value, k, constants)
    quantizer = match_activation(found[0], k, constants)
    if quantizer.reshapes or not quantizer.dequantised:  # the scale is in the order of the tokens
        raise Refused("its tokens are moved between quantizer and product", fix=_MOVED)
    return replace(quantizer, reshapes=(node,))


def _reshaped(quantizer: Activation, reshape: ir.Node, k: int) -> Activation:
    """With a Reshape behind it.

    If that undoes one in front that makes fewer axes, the quantizer is that of the tensor before both.
    """
    quantizer = replace(quantizer, reshapes=(*quantizer.reshapes, reshape), restored=False)
    front = producer(quantizer.x, *RESHAPES)
    inner = None if front is None else front.inputs[0]
    moved = quantizer.reshapes[0].op_type == "Transpose"
    if moved or front is None or inner is None or last_dim(inner) != k:
        return quantizer
    axes, before = rank_of(quantizer.x), rank_of(inner)
    if axes is None or before is None or before < axes:  # of more axes the last one may be a part of K
        return quantizer
    if not same_tokens(inner.shape, reshape.outputs[0].shape, k):
        return quantizer
    reshapes = (front, *quantizer.reshapes)
    return replace(quantizer, x=before_widening(inner), reshapes=reshapes, restored=True, dropped=True)


def _dequantised(found: Activation, codes: Codes, constants: Constants) -> Activation:
    """A quantizer with all that its codes are multiplied by."""

    def row(value: ir.Value) -> NDArray[np.float64] | None:
        number = constants.scalar(value)
        return None if number is None else np.array([number])

    product = ONE
    for value, power, tensor, is_reshaped in codes.factors:
        within = partial(before_token_shape, tensor=tensor, constants=constants)
        factor = read_factor(value, found.largest, constants, row, within=within)
        if factor is None or (factor.power and not found.meets(value, tensor)):
            raise other_scale()
        if factor.power and is_reshaped and not is_of_tokens(value, tensor):
            raise other_scale()
        product = product.times(factor, power)
    gain = float(product.constant[0])
    if product.power == 0:  # a constant alone: the scale is behind the product
        return replace(found, gain=gain)
    if product.power != 1:
        raise other_scale()
    return replace(found, gain=gain * found.divisor, dequantised=True)


def _quantizer(codes: ir.Value, constants: Constants, axis: int) -> Activation:
    """The quantizer of some codes, with nothing behind it."""
    found = rounded(codes, constants)
    if found is None:
        raise Refused("the activations are not rounded to codes")
    scaled, low, high = found
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
            codes=skip_codes(codes, constants),
        )
    raise fixed_scale() if _scales_by_constant(node, constants) else refused


def _scales_by_constant(node: ir.Node, constants: Constants) -> bool:
    """Whether a constant is all that scales: not also what is scaled is a product or quotient."""
    if node.op_type == "QuantizeLinear" or not any(v in constants for v in node.inputs):
        return False
    scaled = [skip(v, constants) for v in node.inputs if v is not None and v not in constants]
    return all(producer(v, "Mul", "Div", "Where") is None for v in scaled)


def _int8_range(qmax: float, low: float, high: float) -> tuple[float, float]:
    """The bounds of the codes; where there are none, those that no code reaches."""
    if np.isinf(low):
        low = INT8_RANGE[0]
    if np.isinf(high) and qmax <= INT8_RANGE[1]:
        high = INT8_RANGE[1]
    integral = low.is_integer() and high.is_integer()
    if not integral or not INT8_RANGE[0] <= low < high <= INT8_RANGE[1] or not 1 <= qmax <= 128:
        raise Refused(
            f"the activation codes, clamp(x * {qmax:g} / max, {low:g}, {high:g}), are not int8",
            fix="clamp them to whole numbers from -128 to 127",
        )
    return low, high
