"""Read the largest magnitude of a token or a tensor, with its epsilon: what activation scales are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitcc.ops import ActScope
from bitcc.passes._refused import Refused
from bitcc.passes.normal_form import clamped, operands, producer, same, skip

if TYPE_CHECKING:
    import onnx_ir as ir

    from bitcc.passes.constants import Constants


_KEEPDIMS = "take the maximum with keepdims=True, so that it needs no Reshape"
_AXIS = "take the maximum over the axis that the product sums over, or over the whole tensor"


def read_absmax(
    x: ir.Value, bounded: ir.Value, constants: Constants, axis: int
) -> tuple[ActScope, float, float]:
    """(scope, floor, eps) of  c = clamp(max|x|, floor)  or  max|x| + eps.

    Args:
        x: What the maximum is of.
        bounded: ``c``.
        constants: Of the model.
        axis: The axis of K in ``x``, counted from the end.

    Raises:
        Refused: it is computed from something else, or bounded in another way.
    """
    floor = eps = 0.0
    value = _behind_reshapes(bounded, constants)
    bounds = clamped(value, constants)
    add = producer(value, "Add")
    if bounds is not None:
        if bounds.low is None or bounds.high is not None:
            raise Refused(
                "the absolute maximum of the activations has an upper bound",
                fix="bound it from below only, by the epsilon",
            )
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
        raise _no_absmax()
    scope = _scope(reduce, x, constants, axis)
    reshaped = value is not skip(bounded, constants) or reduced is not skip(inner, constants)
    if reshaped and scope is not ActScope.TENSOR:
        raise Refused("the absolute maximum of each token is reshaped", fix=_KEEPDIMS)
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
    raise _no_absmax()


def _scope(reduce: ir.Node, x: ir.Value, constants: Constants, axis: int) -> ActScope:
    """Whether the maximum is taken over the axis of K or over all of them."""
    axes: list[int] = list(reduce.attributes.get_ints("axes") or ())
    if not axes and len(reduce.inputs) > 1 and reduce.inputs[1] is not None:
        if reduce.inputs[1] not in constants:
            raise Refused("the axis of the absolute maximum is not constant", fix=_AXIS)
        axes = [int(a) for a in constants.array(reduce.inputs[1]).reshape(-1)]
    if not axes and reduce.attributes.get_int("noop_with_empty_axes", 0) != 0:
        raise Refused("the absolute maximum is taken over no axis", fix=_AXIS)
    rank = None if x.shape is None else x.shape.rank()
    columns = axes == [axis] or (rank is not None and axes == [rank + axis])
    if columns and reduce.attributes.get_int("keepdims", 1) != 0:
        return ActScope.TOKEN
    if not axes or (rank and {a % rank for a in axes} == set(range(rank))):
        return ActScope.TENSOR
    if columns:
        raise Refused("the absolute maximum drops the last axis", fix=_KEEPDIMS)
    wanted = "the last axis" if axis == -1 else f"axis {axis}, which the product sums over,"
    reason = f"the absolute maximum is taken over axes {axes}, neither over {wanted} nor over all"
    raise Refused(reason, fix=_AXIS)


def _no_absmax() -> Refused:
    return Refused(
        "the activation scale is not computed from the input's absolute maximum",
        fix="scale by the largest magnitude of what is quantised, as BitNet b1.58 does",
    )
