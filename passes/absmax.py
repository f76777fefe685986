"""Read the largest magnitude of a token or a tensor, with its epsilon: what activation scales are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bitcc.ops import ActScope
from bitcc.passes._refused import Refused
from bitcc.passes.bounds import clamped, guarded
from bitcc.passes.einsum import RANKS
from bitcc.passes.largest import largest_magnitude
from bitcc.passes.layout import RESHAPES, is_of_tokens, rank_of, same_tokens
from bitcc.passes.normal_form import before_broadcast, operands, producer, same, skip

if TYPE_CHECKING:
    import onnx_ir as ir

    from bitcc.passes.constants import Constants


_MAXIMA = ("ReduceMax", "TopK", "GlobalMaxPool")
_SQUARE = 2
_FLAGS = (("keepdims", 1), ("noop_with_empty_axes", 0))
_KEEPDIMS = "take the maximum with keepdims=True, so that it needs no Reshape"
_AXIS = "take the maximum over the axis that the product sums over, or over the whole tensor"


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
    value, eps = skip(bounded, constants), 0.0
    if (guard := guarded(value, constants)) is not None and same(guard.tested, guard.value, constants):
        value = skip(guard.value, constants)
    elif producer(value, "Add") is not None:
        value, _, eps = _bounded(value, constants)
    found = largest_magnitude(value, x, constants)
    if found is None or (eps and found.floor):
        return None
    fits = is_of_tokens(scale, x) if found.is_reshaped else rank_of(scale) == rank_of(x)
    is_guarded = guard is not None
    return Absmax(ActScope.TOKEN, found.floor, eps, is_guarded, found.dropped) if fits else None


def _reduced(x: ir.Value, bounded: ir.Value, scale: ir.Value, constants: Constants, axis: int) -> Absmax:
    """The same of a maximum that one node takes of the magnitudes, or two of both ends."""
    value = _behind_reshapes(bounded, constants)
    guard = guarded(value, constants)
    is_guarded = guard is not None and same(guard.tested, guard.value, constants)
    inner, floor, eps = (
        (guard.value, 0.0, 0.0) if guard is not None and is_guarded else _bounded(value, constants)
    )
    reduced = _behind_reshapes(inner, constants)
    reduced, floor = _without_floors(reduced, floor, constants)
    found = _of_both_ends(reduced, x, constants) or _of_magnitudes(reduced, x, constants)
    if found.eps and (floor or eps):
        raise _no_absmax()
    reduce = found.reduce
    flat = reduce.inputs[0] is not None and _is_flat(reduce.inputs[0]) and not _is_flat(x)
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
            raise _upper_bound()
        if bounds.low is None or producer(value, "Max", "Clip") is None:
            break
        value, floor = _behind_reshapes(bounds.value, constants), max(floor, bounds.low)
    return value, floor


class _Maximum(NamedTuple):
    """A maximum of magnitudes.

    Attributes:
        reduce: The node.
        floor: Of the magnitudes.
        eps: What is added to them.
        is_reshaped: Whether they are those of ``x`` in another shape.
    """

    reduce: ir.Node
    floor: float = 0.0
    eps: float = 0.0
    is_reshaped: bool = False


def _of_magnitudes(value: ir.Value, x: ir.Value, constants: Constants) -> _Maximum:
    """The maximum of |x|, where |x| may be bounded.

    Raises:
        Refused: it is none.
    """
    root = producer(value, "Sqrt")  # of a square that float32 holds it is the magnitude, to the last bit
    maximum = value if root is None or root.inputs[0] is None else _behind_reshapes(root.inputs[0], constants)
    reduce = producer(maximum, *_MAXIMA)
    if reduce is None or reduce.inputs[0] is None or not _is_maximum(maximum, reduce, constants):
        raise _no_absmax()
    whole = _whole(reduce.inputs[0], x, constants)
    inner, floor, eps = _bounded(whole, constants) if root is None else (whole, 0.0, 0.0)
    magnitude = _whole(inner, x, constants)
    signed = _signed(magnitude, constants) if root is None else _squared(magnitude, constants)
    if signed is None or not same(before := _before_shape(signed, x, constants), x, constants):
        raise _no_absmax() if signed is not None else _other_shape(magnitude, x, constants)
    seen = skip(reduce.inputs[0], constants), skip(inner, constants), signed
    return _Maximum(reduce, floor, eps, is_reshaped=seen != (whole, magnitude, before))


def _other_shape(value: ir.Value, x: ir.Value, constants: Constants) -> Refused:
    """Why a maximum is none of tokens, of what may be |x| in another shape."""
    magnitude = producer(_behind_reshapes(value, constants), "Abs")
    of = None if magnitude is None else magnitude.inputs[0]
    if of is None or not same(_behind_reshapes(of, constants), _behind_reshapes(x, constants), constants):
        return _no_absmax()
    return Refused(
        "the absolute maximum is taken in another shape, whose rows are not known to be tokens", fix=_AXIS
    )


def _before_shape(value: ir.Value, x: ir.Value, constants: Constants) -> ir.Value:
    """``x`` itself, or what may be ``x`` before a Reshape."""
    return value if same(value, x, constants) else _whole(value, x, constants)


def _whole(value: ir.Value, x: ir.Value, constants: Constants) -> ir.Value:
    """The tensor of which a Reshape makes one axis, or other tokens of as many columns as ``x`` has."""
    value = skip(value, constants)
    node = producer(value, *RESHAPES) if _is_flat(value) or _same_columns(value, x) else None
    return value if node is None or node.inputs[0] is None else skip(node.inputs[0], constants)


def _same_columns(value: ir.Value, x: ir.Value) -> bool:
    """Whether it has the columns of ``x``, given that it has as many elements."""
    if value.shape is None or x.shape is None or not value.shape.rank() or not x.shape.rank():
        return False
    columns = x.shape[-1]
    return isinstance(columns, int) and (
        value.shape[-1] == columns or same_tokens(x.shape, value.shape, columns)
    )


def _is_flat(value: ir.Value) -> bool:
    return value.shape is not None and value.shape.rank() == 1


def _bounded(value: ir.Value, constants: Constants) -> tuple[ir.Value, float, float]:
    """(v, floor, eps) of  max(v, floor)  or  v + eps."""
    bounds, add = clamped(value, constants), producer(value, "Add")
    if bounds is not None:
        if bounds.low is None or bounds.high is not None:
            raise _upper_bound()
        return skip(bounds.value, constants), bounds.low, 0.0
    if add is not None:
        inner, eps = _plus_constant(add, constants)
        return skip(inner, constants), 0.0, eps
    return value, 0.0, 0.0


def _squared(value: ir.Value, constants: Constants) -> ir.Value | None:
    """The v of v * v."""
    node = producer(value, "Mul", "Pow")
    if node is None:
        return None
    first, second = node.inputs
    is_square = (
        constants.scalar(second) == _SQUARE if node.op_type == "Pow" else same(first, second, constants)
    )
    return first if is_square else None


def _signed(magnitude: ir.Value, constants: Constants) -> ir.Value | None:
    """The v of |v|, of max(v, -v), or of the root of its square."""
    node = producer(magnitude, "Abs", "Max", "Sqrt")
    if node is not None and node.op_type == "Sqrt" and node.inputs[0] is not None:
        return _squared(skip(node.inputs[0], constants), constants)
    if node is None or node.op_type == "Abs":
        return None if node is None else node.inputs[0]
    for value, other in operands(node):
        if same(_negated(other, constants), value, constants):
            return value
    return None


def _negated(value: ir.Value, constants: Constants) -> ir.Value | None:
    """The v of -v."""
    node = producer(skip(value, constants), "Neg", "Mul", "Sub")
    if node is None or node.op_type == "Neg":
        return None if node is None else node.inputs[0]
    if node.op_type == "Sub":
        return node.inputs[1] if constants.scalar(node.inputs[0]) == 0 else None
    return next((v for v, number in operands(node) if constants.scalar(number) == -1), None)


def _of_both_ends(value: ir.Value, x: ir.Value, constants: Constants) -> _Maximum | None:
    """The maximum of  max(max(x), -min(x)), or of the same with absolute values; None for anything else.

    Either end may be bounded by zero, and the lower one be that of -x.
    """

    def is_x(value: ir.Value | None) -> bool:
        return value is not None and same(_before_shape(value, x, constants), x, constants)

    node = producer(value, "Max")
    for above, below in () if node is None else operands(node):
        first, second = (_beyond_zero(v, constants, (0, None)) for v in (above, below))
        most = _within_abs(first, constants) or skip(first, constants)
        least = _within_abs(second, constants) or _negated(second, constants) or second
        upper = producer(_beyond_zero(most, constants, (0, None)), "ReduceMax")
        lower = producer(_beyond_zero(least, constants, (None, 0)), "ReduceMin")
        of = None if lower is None else lower.inputs[0]
        if lower is None and (lower := producer(skip(below, constants), "ReduceMax")) is not None:
            of = None if lower.inputs[0] is None else _negated(lower.inputs[0], constants)
        if upper is None or lower is None or not is_x(upper.inputs[0]):
            continue
        alike = all(upper.attributes.get_int(*a) == lower.attributes.get_int(*a) for a in _FLAGS)
        if alike and is_x(of) and _axes(upper, constants) == _axes(lower, constants):
            return _Maximum(upper, is_reshaped=not same(upper.inputs[0], x, constants))
    return None


def _beyond_zero(
    value: ir.Value, constants: Constants, bounds: tuple[float | None, float | None]
) -> ir.Value:
    """The v of a clamp of v to these bounds; any other value itself."""
    clamp = clamped(skip(value, constants), constants)
    return value if clamp is None or (clamp.low, clamp.high) != bounds else skip(clamp.value, constants)


def _within_abs(value: ir.Value, constants: Constants) -> ir.Value | None:
    node = producer(skip(value, constants), "Abs")
    return None if node is None else node.inputs[0]


def _is_maximum(value: ir.Value, node: ir.Node, constants: Constants) -> bool:
    """Whether the node is a maximum as it is, or a TopK of one value."""
    if node.op_type != "TopK":
        return True
    largest = node.attributes.get_int("largest", 1) != 0
    return value.index() == 0 and largest and constants.scalar(node.inputs[1]) == 1


def _axes(reduce: ir.Node, constants: Constants) -> list[int]:
    """What a maximum is taken over; empty for all axes.

    Raises:
        Refused: it is computed.
    """
    if reduce.op_type == "TopK":
        return [reduce.attributes.get_int("axis", -1) or 0]
    if reduce.op_type == "GlobalMaxPool":  # over all axes behind the second one
        if (rank := rank_of(reduce.inputs[0])) is None:
            raise Refused("the rank of what a GlobalMaxPool pools is not known", fix=RANKS)
        return list(range(2, rank))
    axes = list(reduce.attributes.get_ints("axes") or ())
    if not axes and len(reduce.inputs) > 1 and reduce.inputs[1] is not None:
        if reduce.inputs[1] not in constants:
            raise Refused("the axis of the absolute maximum is not constant", fix=_AXIS)
        axes = [int(a) for a in constants.array(reduce.inputs[1]).reshape(-1)]
    return axes


def _behind_reshapes(value: ir.Value, constants: Constants) -> ir.Value:
    """The one number behind what ``.item()`` and shapes of ones leave; all the same for other tensors."""
    value = skip(value, constants)
    while (node := producer(value, *RESHAPES, "Expand", "Gather")) is not None:
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


def _scope(reduce: ir.Node, constants: Constants, axis: int, *, given_back: bool) -> ActScope:
    """Whether the maximum is taken over the axis of K, which may be given back, or over all of them."""
    axes = _axes(reduce, constants)
    if not axes and reduce.attributes.get_int("noop_with_empty_axes", 0) != 0:
        raise Refused("the absolute maximum is taken over no axis", fix=_AXIS)
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
    raise Refused(reason, fix=_AXIS)


def _upper_bound() -> Refused:
    return Refused(
        "the absolute maximum of the activations has an upper bound",
        fix="bound it from below only, by the epsilon",
    )


def _no_absmax() -> Refused:
    return Refused(
        "the activation scale is not computed from the input's absolute maximum",
        fix="scale by the largest magnitude of what is quantised, as BitNet b1.58 does",
    )
