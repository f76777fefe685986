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
from typing import TYPE_CHECKING

import numpy as np

from bitcc.passes import qonnx
from bitcc.passes._refused import Refused
from bitcc.passes.absmax import read_absmax
from bitcc.passes.act_codes import (
    INT8_RANGE,
    Codes,
    last_dim,
    read_codes,
    rounded,
    rounding_in_front,
    skip_codes,
)
from bitcc.passes.act_scale import least_floor, readings
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

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.ops import ActScale, ActScope
    from bitcc.passes.constants import Constants

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
    value = skip(value, constants)
    reshape = producer(value, *RESHAPES)
    inner = None if reshape is None or axis != -1 else reshape.inputs[0]
    if reshape is not None and inner is not None and last_dim(inner) == k:
        return _reshaped(_of_moved_tokens(inner, k, constants), reshape, k)
    value = without_residue(value, constants) or value
    if (found := read_codes(value, k if axis == -1 else None, constants)) is None:
        raise _no_codes(value, constants)
    quantizer = _quantizer(found.codes, constants, axis)
    if found.factors:
        quantizer = _dequantised(quantizer, found, constants)
    for node in found.reshapes:
        quantizer = _reshaped(quantizer, node, k)
    return quantizer


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


def _other_rounding(node: ir.Node) -> Refused:
    where = f"`{node.name or node.outputs[0].name}` ({node.op_type})"
    if node.op_type != "Round":
        return Refused(
            f"its activations are rounded by {where}, and not to the nearest even number",
            fix="round them with torch.round or another op that is exported as Round",
        )
    return Refused(
        f"what {where} rounds is changed in front of the product by more than one scale for each token",
        fix="for integer kernels, quantise what each product reads by itself, with one scale for each token",
    )


def _no_codes(value: ir.Value, constants: Constants) -> Refused:
    """Why a value has no codes that are read."""
    node = value.producer()
    if node is None or not (qonnx.is_quantizer(node) or producer(value, "DequantizeLinear") is node):
        if (rounding := rounding_in_front(value, constants)) is not None:
            return _other_rounding(rounding)
        if (sign := producer(skip_codes(value, constants), "Sign")) is not None:
            where = f"`{sign.name or sign.outputs[0].name}`"
            return Refused(
                f"its activations are signs, made by {where}, and no int8 codes",
                fix="for integer kernels, quantise them to int8, as BitNet b1.58 does",
            )
        return Refused(
            "there is no activation quantizer in front of it",
            fix="if it was trained with one, export it in eval mode with the quantizer in the graph",
        )
    if len(node.inputs) > 1 and node.inputs[1] not in constants:
        return Refused(
            "its activation quantizer has a zero point, or codes that are not int8",
            fix="for integer kernels, quantise symmetrically to int8, as BitNet b1.58 does",
        )
    return _fixed_scale()


def _fixed_scale() -> Refused:
    return Refused(
        "the scale of its activation quantizer is fixed, and not that of a token or a tensor",
        fix="for integer kernels, scale by the largest magnitude, as BitNet b1.58 does",
    )


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
            raise _other_scale()
        if factor.power and is_reshaped and not is_of_tokens(value, tensor):
            raise _other_scale()
        product = product.times(factor, power)
    gain = float(product.constant[0])
    if product.power == 0:  # a constant alone: the scale is behind the product
        return replace(found, gain=gain)
    if product.power != 1:
        raise _other_scale()
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
    raise _fixed_scale() if _scales_by_constant(node, constants) else refused


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


def _other_scale() -> Refused:
    return Refused(
        "the activation codes are dequantised by another scale than they were quantised by",
        fix="divide the codes by the scale that the activations were multiplied by",
    )
