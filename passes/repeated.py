"""Find a weight that a graph repeats for every element of a batch, whose size is known when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bitcc.passes._refused import Refused
from bitcc.passes.layout import swapped, transposition
from bitcc.passes.normal_form import producer

if TYPE_CHECKING:
    import onnx_ir as ir

    from bitcc.passes.constants import Constants

_FIX = "multiply with the matrix itself, which torch.matmul and MatMul repeat"
_KEEPS_VALUES = ("Expand", "Identity", "Reshape", "Tile", "Transpose", "Unsqueeze")


class Stored(NamedTuple):
    """What a node reads as its weight.

    Attributes:
        value: The weight itself.
        sides_swap: Whether Transposes behind it swap its rows and columns.
        repeated: Whether it is repeated at all.
        in_one_step: Whether an Expand alone does that, and leaves the matrix what it is.
    """

    value: ir.Value
    sides_swap: bool = False
    repeated: bool = False
    in_one_step: bool = True


def stored(value: ir.Value, constants: Constants) -> Stored:
    """The weight behind what repeats it; any other value as it is."""
    node = producer(value, "Expand")
    if node is not None and (inner := node.inputs[0]) is not None and constants.independent_of_inputs(inner):
        if _is_matrix(inner) and _sides(value) == _sides(inner):
            return Stored(inner, repeated=True)
        return Stored(value)
    if constants.independent_of_inputs(value):
        return Stored(value)
    found, sides_swap, repeats = value, False, False
    while (node := producer(found, *_KEEPS_VALUES)) is not None:
        moved = transposition(found)
        sides_swap ^= moved is not None and moved[1] == swapped(len(moved[1]))
        repeats |= node.op_type in {"Expand", "Tile"}
        if (inner := node.inputs[0]) is None:
            break
        found = inner
        if constants.independent_of_inputs(found):
            is_weight = repeats and _is_matrix(found)
            return Stored(found, sides_swap, repeated=True, in_one_step=False) if is_weight else Stored(value)
    return Stored(value)


def check_repetition(x: ir.Value, weight: ir.Value, read: Stored, *, columns: int = 2) -> None:
    """Check that a weight is repeated for a batch that the input has, so that the output has no other.

    Args:
        x: The input.
        weight: What the node reads as its weight.
        read: What that is.
        columns: Axes of the input that meet the matrix: rows and columns, or columns alone.

    Raises:
        Refused: it is not, or that cannot be told.
    """
    if not read.repeated:
        return
    batch = () if weight.shape is None else tuple(weight.shape)[:-2]
    rows = () if x.shape is None else tuple(x.shape)[:-columns]
    axes = [] if len(rows) < len(batch) else list(zip(batch, rows[len(rows) - len(batch) :], strict=True))
    alike = [b == 1 or (b == a and (isinstance(b, int) or b.value is not None)) for b, a in axes]
    if not read.in_one_step or not axes or not all(alike):
        raise Refused(
            "its weight is repeated for a batch that may be another than that of its input", fix=_FIX
        )


def _sides(value: ir.Value) -> tuple[int | ir.SymbolicDim, ...] | None:
    return None if value.shape is None or value.shape.rank() < 2 else tuple(value.shape)[-2:]


def _is_matrix(value: ir.Value) -> bool:
    """Whether both sides are longer than one, and nothing else is."""
    sides = _sides(value)
    if sides is None or value.shape is None or not value.shape.is_static():
        return False
    return 1 not in sides and set(value.shape.numpy()[:-2]) <= {1}
