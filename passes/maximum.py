"""Find what takes the largest magnitude of a tensor: one node of |x|, or two of both ends of x."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bitcc.passes._refused import Refused
from bitcc.passes.bounds import clamped
from bitcc.passes.einsum import RANKS
from bitcc.passes.finite import numbers_of
from bitcc.passes.layout import RESHAPES, rank_of, same_tokens
from bitcc.passes.normal_form import operands, producer, same, skip

if TYPE_CHECKING:
    import onnx_ir as ir

    from bitcc.passes.constants import Constants


_MAXIMA = ("ReduceMax", "TopK", "GlobalMaxPool")
_SQUARE = 2
_FLAGS = (("keepdims", 1), ("noop_with_empty_axes", 0))
OTHER_AXIS = "take the maximum over the axis that the product sums over, or over the whole tensor"


class Maximum(NamedTuple):
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


def of_both_ends(value: ir.Value, x: ir.Value, constants: Constants) -> Maximum | None:
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
        if alike and is_x(of) and axes_of(upper, constants) == axes_of(lower, constants):
            return Maximum(upper, is_reshaped=not same(upper.inputs[0], x, constants))
    return None


def of_magnitudes(value: ir.Value, x: ir.Value, constants: Constants) -> Maximum:
    """The maximum of |x|, where |x| may be bounded.

    Raises:
        Refused: it is none.
    """
    root = producer(value, "Sqrt")  # of a square that float32 holds it is the magnitude, to the last bit
    maximum = value if root is None or root.inputs[0] is None else behind_reshapes(root.inputs[0], constants)
    reduce = producer(maximum, *_MAXIMA)
    if reduce is None or reduce.inputs[0] is None or not _is_maximum(maximum, reduce, constants):
        raise no_absmax()
    whole = _whole(reduce.inputs[0], x, constants)
    inner, floor, eps = bounded_below(whole, constants) if root is None else (whole, 0.0, 0.0)
    magnitude = _whole(inner, x, constants)
    signed = _signed(magnitude, constants) if root is None else _squared(magnitude, constants)
    if signed is None or not same(before := _before_shape(signed, x, constants), x, constants):
        raise no_absmax() if signed is not None else _other_shape(magnitude, x, constants)
    seen = skip(reduce.inputs[0], constants), skip(inner, constants), signed
    return Maximum(reduce, floor, eps, is_reshaped=seen != (whole, magnitude, before))


def _other_shape(value: ir.Value, x: ir.Value, constants: Constants) -> Refused:
    """Why a maximum is none of tokens, of what may be |x| in another shape."""
    magnitude = producer(behind_reshapes(value, constants), "Abs")
    of = None if magnitude is None else magnitude.inputs[0]
    if of is None or not same(behind_reshapes(of, constants), behind_reshapes(x, constants), constants):
        return no_absmax()
    reason = "the absolute maximum is taken in another shape, whose rows are not known to be tokens"
    return Refused(reason, fix=OTHER_AXIS)


def _before_shape(value: ir.Value, x: ir.Value, constants: Constants) -> ir.Value:
    """``x`` itself, or what may be ``x`` before a Reshape."""
    return value if same(value, x, constants) else _whole(value, x, constants)


def _whole(value: ir.Value, x: ir.Value, constants: Constants) -> ir.Value:
    """The tensor of which a Reshape makes one axis, or other tokens of as many columns as ``x`` has."""
    value = skip(value, constants)
    node = producer(value, *RESHAPES) if is_flat(value) or _same_columns(value, x) else None
    return value if node is None or node.inputs[0] is None else skip(node.inputs[0], constants)


def _same_columns(value: ir.Value, x: ir.Value) -> bool:
    """Whether it has the columns of ``x``, given that it has as many elements."""
    if value.shape is None or x.shape is None or not value.shape.rank() or not x.shape.rank():
        return False
    columns = x.shape[-1]
    return isinstance(columns, int) and (
        value.shape[-1] == columns or same_tokens(x.shape, value.shape, columns)
    )


def is_flat(value: ir.Value) -> bool:
    """Whether it has one axis."""
    return value.shape is not None and value.shape.rank() == 1


def bounded_below(value: ir.Value, constants: Constants) -> tuple[ir.Value, float, float]:
    """(v, floor, eps) of  max(v, floor)  or  v + eps."""
    bounds, add = clamped(value, constants), producer(value, "Add")
    if bounds is not None:
        if bounds.low is None or bounds.high is not None:
            raise upper_bound()
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


def axes_of(reduce: ir.Node, constants: Constants) -> list[int]:
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
            raise Refused("the axis of the absolute maximum is not constant", fix=OTHER_AXIS)
        axes = [int(a) for a in constants.array(reduce.inputs[1]).reshape(-1)]
    return axes


def behind_reshapes(value: ir.Value, constants: Constants) -> ir.Value:
    """The one number behind what ``.item()`` and shapes of ones leave; all the same for other tensors."""
    value = numbers_of(value, constants)
    while (node := producer(value, *RESHAPES, "Expand", "Gather")) is not None:
        if node.inputs[0] is None:
            break
        if node.op_type == "Gather" and constants.scalar(node.inputs[1]) is None:
            break
        value = numbers_of(node.inputs[0], constants)
    return value


def _plus_constant(add: ir.Node, constants: Constants) -> tuple[ir.Value, float]:
    for value, constant in operands(add):
        number = constants.scalar(constant)
        if number is not None:
            return value, number
    raise no_absmax()


def upper_bound() -> Refused:
    """Why a maximum that has one is none of a BitLinear."""
    return Refused(
        "the absolute maximum of the activations has an upper bound",
        fix="bound it from below only, by the epsilon",
    )


def no_absmax() -> Refused:
    """Why a scale is none that is known."""
    return Refused(
        "the activation scale is not computed from the input's absolute maximum",
        fix="scale by the largest magnitude of what is quantised, as BitNet b1.58 does",
    )
