"""Read which part of a tensor an output of a split is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bitcc.passes.layout import rank_of
from bitcc.passes.normal_form import producer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from bitcc.passes.constants import Constants


class Cut(NamedTuple):
    """The elements ``start`` to ``stop`` of a tensor along an axis, which may be negative."""

    whole: ir.Value
    axis: int
    start: int
    stop: int


def cut(value: ir.Value, constants: Constants) -> Cut | None:
    """What an output of a Split, or an element of a split sequence, is; None where that is not known."""
    if (node := producer(value, "Split")) is not None:
        index, sizes = value.index(), _sizes_of_outputs(node)
    else:
        at = producer(value, "SequenceAt")
        node = None if at is None else producer(at.inputs[0], "SplitToSequence")
        place = None if at is None else constants.scalar(at.inputs[1])
        if (
            node is None
            or place is None
            or (len(node.inputs) < 2 and node.attributes.get_int("keepdims", 1) == 0)
        ):
            return None
        index, sizes = int(place), _sizes_in_sequence(node, constants)
    whole = None if node is None else node.inputs[0]
    if node is None or whole is None or sizes is None or index is None or not 0 <= index < len(sizes):
        return None
    start = sum(sizes[:index])
    return Cut(whole, node.attributes.get_int("axis", 0) or 0, start, start + sizes[index])


def _size(value: ir.Value | None, axis: int) -> int | None:
    rank = rank_of(value)
    if value is None or value.shape is None or rank is None or not -rank <= axis < rank:
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None


def _sizes_of_outputs(node: ir.Node) -> Sequence[int] | None:
    sizes = [_size(v, node.attributes.get_int("axis", 0) or 0) for v in node.outputs]
    known = [size for size in sizes if size is not None]
    return known if len(known) == len(sizes) else None


def _sizes_in_sequence(node: ir.Node, constants: Constants) -> Sequence[int] | None:
    """Those of the tensors of a SplitToSequence: given, or one for all but the last."""
    given, size = (*node.inputs, None)[1], _size(node.inputs[0], node.attributes.get_int("axis", 0) or 0)
    if given is not None and given not in constants:
        return None
    array = None if given is None else constants.array(given)
    if array is not None and array.ndim:
        return [int(part) for part in array]
    step = 1 if array is None else int(array)
    if size is None or step < 1:
        return None
    return [min(step, size - start) for start in range(0, size, step)]
