"""Read the largest magnitude of a token or a tensor, with its epsilon: what activation scales are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bitcc.ops import ActScope
from bitcc.passes._refused import Refused
from bitcc.passes.bounds import clamped, guarded
from bitcc.passes.finite import numbers_of
from bitcc.passes.largest import largest_magnitude
from bitcc.passes.layout import is_of_tokens, rank_of
from bitcc.passes.maximum import (
    OTHER_AXIS,
    axes_of,
    behind_reshapes,
    bounded_below,
    is_flat,
    no_absmax,
    of_both_ends,
    of_magnitudes,
    upper_bound,
)
from bitcc.passes.normal_form import before_broadcast, producer, same, skip

if TYPE_CHECKING:
    import onnx_ir as ir

    from bitcc.passes.constants import Constants


_KEEPDIMS = "take the maximum with keepdims=True, so that it needs no Reshape"


class Absmax(NamedTuple):
    """``c = max(max|x|, floor) + eps``.

    Attributes:
        scope: What has a maximum of its own.
        floor: Lower bound of the maximum.
        eps: What is added to it.
        guarded: Whether something else stands for a maximum of zero.
        dropped: Whether the graph's tensor of it has no axis for the columns, and gets it later.
    """

    scope: ActScope
    floor: float
    eps: float
    guarded: bool = False
    dropped: bool = False


def read_absmax(x: ir.Value, bounded: ir.Value, scale: ir.Value, constants: Constants, axis: int) -> Absmax:
    """Read  c = clamp(max|x|, floor)  or  max|x| + eps,  where |x| may be bounded instead.

    Args:
        x: What the maximum is of.
        bounded: ``c``.
        scale: What is made of it and meets ``x``.
        constants: Of the model.
        axis: The axis of K in ``x``, counted from the end.

    Raises:
        Refused: it is computed from something else, or bounded in another way.
    """
    try:
        return _reduced(x, bounded, scale, constants, axis)
    except Refused:
        if axis != -1 or (found := _selected(x, bounded, scale, constants)) is None:
            raise
    return found


def _selected(x: ir.Value, bounded: ir.Value, scale: ir.Value, constants: Constants) -> Absmax | None:
    """The same of a maximum of tokens that comparisons of any kind select; None for anything else."""
    value, eps = numbers_of(bounded, constants), 0.0
    if (guard := guarded(value, constants)) is not None and same(guard.tested, guard.value, constants):
        value = skip(guard.value, constants)
    elif producer(value, "Add") is not None:
        value, _, eps = bounded_below(value, constants)
    found = largest_magnitude(value, x, constants)
    if found is None or (eps and found.floor):
        return None
    fits = is_of_tokens(scale, x) if found.is_reshaped else rank_of(scale) == rank_of(x)
    is_guarded = guard is not None
    return Absmax(ActScope.TOKEN, found.floor, eps, is_guarded, found.dropped) if fits else None


def _reduced(x: ir.Value, bounded: ir.Value, scale: ir.Value, constants: Constants, axis: int) -> Absmax:
    """The same of a maximum that one node takes of the magnitudes, or two of both ends."""
    value = behind_reshapes(bounded, constants)
    guard = guarded(value, constants)
    is_guarded = guard is not None and same(guard.tested, guard.value, constants)
    inner, floor, eps = (
        (guard.value, 0.0, 0.0) if guard is not None and is_guarded else bounded_below(value, constants)
    )
    reduced = behind_reshapes(inner, constants)
    reduced, floor = _without_floors(reduced, floor, constants)
    found = of_both_ends(reduced, x, constants) or of_magnitudes(reduced, x, constants)
    if found.eps and (floor or eps):
        raise no_absmax()
    reduce = found.reduce
    flat = reduce.inputs[0] is not None and is_flat(reduce.inputs[0]) and not is_flat(x)
    given_back = axis == -1 and rank_of(scale) is not None and rank_of(scale) == rank_of(x)
    scope = ActScope.TENSOR if flat else _scope(reduce, constants, axis, given_back=given_back)
    if scope is not ActScope.TOKEN:
        return Absmax(scope, max(floor, found.floor), eps or found.eps, is_guarded)
    seen = before_broadcast(bounded, constants), before_broadcast(inner, constants)
    is_reshaped = found.is_reshaped or seen != (value, reduced)
    if is_reshaped and (axis != -1 or not is_of_tokens(scale, x)):
        raise Refused("the absolute maximum of each token is reshaped", fix=_KEEPDIMS)
    dropped = is_reshaped or reduce.attributes.get_int("keepdims", 1) == 0
    return Absmax(scope, max(floor, found.floor), eps or found.eps, is_guarded, dropped)


def _without_floors(value: ir.Value, floor: float, constants: Constants) -> tuple[ir.Value, float]:
    """(v, floor) of  max(max(v, low), floor), where a low of zero is none: magnitudes are not below."""
    while (bounds := clamped(value, constants)) is not None:
        if bounds.high is not None:
            raise upper_bound()
        if bounds.low is None or producer(value, "Max", "Clip") is None:
            break
        value, floor = behind_reshapes(bounds.value, constants), max(floor, bounds.low)
    return value, floor


def _scope(reduce: ir.Node, constants: Constants, axis: int, *, given_back: bool) -> ActScope:
    """Whether the maximum is taken over the axis of K, which may be given back, or over all of them."""
    axes = axes_of(reduce, constants)
    if not axes and reduce.attributes.get_int("noop_with_empty_axes", 0) != 0:
        raise Refused("the absolute maximum is taken over no axis", fix=OTHER_AXIS)
    rank = rank_of(reduce.inputs[0])
    columns = axes == [axis] or (rank is not None and axes == [rank + axis])
    if columns and (reduce.attributes.get_int("keepdims", 1) != 0 or given_back):
        return ActScope.TOKEN
    if not axes or (rank and {a % rank for a in axes} == set(range(rank))):
        return ActScope.TENSOR
    if columns:
        raise Refused("the absolute maximum drops the last axis", fix=_KEEPDIMS)
    wanted = "the last axis" if axis == -1 else f"axis {axis}, which the product sums over,"
    reason = f"the absolute maximum is taken over axes {axes}, neither over {wanted} nor over all"
    raise Refused(reason, fix=OTHER_AXIS)
