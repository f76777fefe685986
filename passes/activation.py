"""Recognise the activation quantizer of BitNet b1.58: absmax to int8, per token or per tensor.

    c = clamp(max|x|, min=floor) or max|x| + eps       over the last axis, or over all
    a = qmax * (1 / c)   or   qmax / c   or, dividing, x / (c / qmax)
    q = clamp(round_half_even(x * a), low, high)        then q itself, or q / a

The arithmetic is reproduced operation by operation, since one unit in the last place of the scale can
move a code. Source: arXiv 2402.17764 and "The Era of 1-bit LLMs: Training Tips, Code and FAQ".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bitcc.ops import ActScale, ActScope
from bitcc.passes._refused import Refused
from bitcc.passes.normal_form import (
    before_widening,
    clamped,
    operands,
    producer,
    same,
    skip,
    without_residue,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from bitcc.passes.constants import Constants

_INT8_RANGE = (-128.0, 127.0)
_MAX_EPS = 1e30  # what the op library reads
_UNKNOWN_FORM = "the activation scale has no known form"


@dataclass(frozen=True)
class Activation:
    """A matched activation quantizer.

    Attributes:
        x: What is quantised, [..., K].
        scale: The multiplier ``a``, or the divisor ``c / qmax`` for ``ActScale.QUOTIENT``; [..., 1], or one
            number for the tensor.
        form: How the scale is computed and applied.
        scope: What has a scale of its own.
        floor: Lower bound of max|x|.
        eps: What is added to max|x|.
        qmax: 127 or 128.
        low: Lower clamp bound of the codes.
        high: Upper clamp bound of the codes.
        codes: The codes, [..., K].
        dequantised: Whether the codes are divided by the scale again before they are used.
        shape: What the quantised tensor is reshaped to before it is multiplied, or None; its rows of K
            stay what they are.
    """

    x: ir.Value
    scale: ir.Value
    form: ActScale
    scope: ActScope
    floor: float
    eps: float
    qmax: float
    low: float
    high: float
    codes: ir.Value
    dequantised: bool
    shape: ir.Value | None = None


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
    reshape = producer(value, "Reshape")
    inner = None if reshape is None or axis != -1 else reshape.inputs[0]
    if reshape is not None and inner is not None and _last_dim(inner) == k:
        return replace(match_activation(inner, k, constants), shape=reshape.inputs[1])
    value = without_residue(value, constants) or value
    node = producer(value, "Div", "Mul")
    for codes, scale in () if node is None else operands(node):
        if node is not None and _rounded(codes, constants) is not None:
            return _dequantised(node, codes, scale, constants, axis)
    if _rounded(value, constants) is None:
        raise Refused(
            "there is no activation quantizer in front of it",
            fix="if it was trained with one, export it in eval mode with the quantizer in the graph",
        )
    return _quantizer(value, constants, axis, dequantised=False)


def _last_dim(value: ir.Value) -> int | None:
    last = value.shape[-1] if value.shape is not None and value.shape.rank() else None
    return last if isinstance(last, int) else None


def _dequantised(
    node: ir.Node, codes: ir.Value, scale: ir.Value, constants: Constants, axis: int
) -> Activation:
    found = _quantizer(codes, constants, axis, dequantised=True)
    multiplies = found.form is ActScale.QUOTIENT
    if (node.op_type == "Mul") is not multiplies or not same(scale, found.scale, constants):
        raise Refused("the activation codes are dequantised by another scale than they were quantised by")
    return found


def _rounded(value: ir.Value | None, constants: Constants) -> tuple[ir.Value, float, float] | None:
    """(v, low, high) where value = clamp(round(v), low, high), in either order, behind integer Casts."""
    if value is None:
        return None
    low, high = _INT8_RANGE
    value = _skip_codes(value, constants)
    if (bounds := clamped(value, constants)) is not None:
        if bounds.low is None or bounds.high is None:
            return None
        low, high = bounds.low, bounds.high
        value = _skip_codes(bounds.value, constants)
    node = producer(value, "Round")
    if node is None or node.inputs[0] is None:
        return None
    value = skip(node.inputs[0], constants)
    if bounds is None and (bounds := clamped(value, constants)) is not None:
        if bounds.low is None or bounds.high is None:
            return None
        low, high = bounds.low, bounds.high
        value = skip(bounds.value, constants)
    return value, low, high


def _skip_codes(value: ir.Value, constants: Constants) -> ir.Value:
    """The codes behind a straight-through residue and Casts to int8 or int32 and back."""
    while True:
        inner = without_residue(value, constants)
        if inner is None and (node := producer(value, "Cast")) is not None:
            inner = node.inputs[0]
        if inner is None:
            inner = skip(value, constants)
        if inner is value:
            return value
        value = inner


def _quantizer(codes: ir.Value, constants: Constants, axis: int, *, dequantised: bool) -> Activation:
    rounded = _rounded(codes, constants)
    if rounded is None:
        raise Refused("the activations are not rounded to codes")
    scaled, low, high = rounded
    node = producer(scaled, "Mul", "Div")
    if node is None:
        raise Refused("the rounded activations are not a product of the input and its scale")
    refused = Refused(_UNKNOWN_FORM)
    for x, scale in operands(node):
        try:
            form, qmax, bounded = _scale(scale, constants, divides=node.op_type == "Div")
            scope, floor, eps = _absmax(x, bounded, constants, axis)
        except Refused as refusal:
            refused = refusal if refused.reason == _UNKNOWN_FORM else refused
            continue
        _check_range(qmax, low, high)
        if floor < 0 or eps < 0:
            raise Refused(f"the epsilon of the activation scale is negative ({min(floor, eps):g})")
        if not max(floor, eps) <= _MAX_EPS:
            raise Refused(f"the epsilon of the activation scale is {max(floor, eps):g}, over {_MAX_EPS:g}")
        return Activation(
            x=before_widening(x),
            scale=scale,
            form=form,
            scope=scope,
            floor=floor,
            eps=eps,
            qmax=qmax,
            low=low,
            high=high,
            codes=_skip_codes(codes, constants),
            dequantised=dequantised,
        )
    raise refused


def _scale(value: ir.Value, constants: Constants, *, divides: bool) -> tuple[ActScale, float, ir.Value]:
    """(form, qmax, c) of the scale of the codes."""
    node = producer(skip(value, constants), "Mul", "Div")
    if node is None:
        raise Refused(_UNKNOWN_FORM)
    first, second = node.inputs
    if divides:
        qmax = constants.scalar(second)
        if node.op_type == "Div" and qmax is not None and first is not None:
            return ActScale.QUOTIENT, qmax, first
    elif node.op_type == "Div":
        qmax = constants.scalar(first)
        if qmax is not None and second is not None:
            return ActScale.DIVIDE, qmax, second
    else:
        for inverse, factor in ((first, second), (second, first)):
            qmax = constants.scalar(factor)
            reciprocal = None if inverse is None else producer(skip(inverse, constants), "Reciprocal")
            if qmax is not None and reciprocal is not None and reciprocal.inputs[0] is not None:
                return ActScale.RECIPROCAL, qmax, reciprocal.inputs[0]
    raise Refused(_UNKNOWN_FORM)


def _absmax(x: ir.Value, bounded: ir.Value, constants: Constants, axis: int) -> tuple[ActScope, float, float]:
    """(scope, floor, eps) of c = clamp(max|x|, floor) or max|x| + eps."""
    floor = eps = 0.0
    value = _behind_reshapes(bounded, constants)
    bounds = clamped(value, constants)
    add = producer(value, "Add")
    if bounds is not None:
        if bounds.low is None or bounds.high is not None:
            raise Refused("the absolute maximum of the activations has an upper bound")
        floor, inner = bounds.low, bounds.value
    elif add is not None:
        inner, eps = _plus_constant(add, constants)
    else:
        inner = value
    reduced = _behind_reshapes(inner, constants)
    reduce = producer(reduced, "ReduceMax")
    absolute = (
        None
        if reduce is None or reduce.inputs[0] is None
        else producer(skip(reduce.inputs[0], constants), "Abs")
    )
    if reduce is None or absolute is None or not same(absolute.inputs[0], x, constants):
        raise Refused("the activation scale is not computed from the input's absolute maximum")
    scope = _scope(reduce, x, constants, axis)
    reshaped = value is not skip(bounded, constants) or reduced is not skip(inner, constants)
    if reshaped and scope is not ActScope.TENSOR:
        raise Refused("the absolute maximum of each token is reshaped")
    return scope, floor, eps


def _behind_reshapes(value: ir.Value, constants: Constants) -> ir.Value:
    """The one number behind what ``.item()`` and shapes of ones leave; all the same for other tensors."""
    value = skip(value, constants)
    while (node := producer(value, "Reshape", "Squeeze", "Unsqueeze", "Gather")) is not None:
        if node.inputs[0] is None:
            break
        if node.op_type == "Gather" and constants.scalar(node.inputs[1]) is None:
            break
        value = skip(node.inputs[0], constants)
    return value


def _plus_constant(add: ir.Node, constants: Constants) -> tuple[ir.Value, float]:
    for value, constant in operands(add):
        number = constants.scalar(constant)
        if number is not None:
            return value, number
    raise Refused("the activation scale is not computed from the input's absolute maximum")


def _scope(reduce: ir.Node, x: ir.Value, constants: Constants, axis: int) -> ActScope:
    """Whether the maximum is taken over the axis of K or over all of them."""
    axes: list[int] = list(reduce.attributes.get_ints("axes") or ())
    if not axes and len(reduce.inputs) > 1 and reduce.inputs[1] is not None:
        if reduce.inputs[1] not in constants:
            raise Refused("the axis of the absolute maximum is not constant")
        axes = [int(a) for a in constants.array(reduce.inputs[1]).reshape(-1)]
    if not axes and reduce.attributes.get_int("noop_with_empty_axes", 0) != 0:
        raise Refused("the absolute maximum is taken over no axis")
    rank = None if x.shape is None else x.shape.rank()
    columns = axes == [axis] or (rank is not None and axes == [rank + axis])
    if columns and reduce.attributes.get_int("keepdims", 1) != 0:
        return ActScope.TOKEN
    if not axes or (rank and {a % rank for a in axes} == set(range(rank))):
        return ActScope.TENSOR
    if columns:
        raise Refused("the absolute maximum drops the last axis")
    wanted = "the last axis" if axis == -1 else f"axis {axis}, which the product sums over,"
    raise Refused(f"the absolute maximum is taken over axes {axes}, neither over {wanted} nor over all")


def _check_range(qmax: float, low: float, high: float) -> None:
    integral = low.is_integer() and high.is_integer()
    if not integral or not _INT8_RANGE[0] <= low < high <= _INT8_RANGE[1] or not 1 <= qmax <= 128:
        raise Refused(f"the activation codes, clamp(x * {qmax:g} / max, {low:g}, {high:g}), are not int8")
