"""Follow the elements of tokens through one node that moves or reduces them."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bitcc.passes.normal_form import producer
from bitcc.passes.split import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants
    from bitcc.passes.elements import Elements


class Move(NamedTuple):
    """One output of a node, and what is known of the node's first input."""

    value: ir.Value
    node: ir.Node
    of: Elements
    constants: Constants

    def follow(self) -> Elements | None:
        """What is known of the output; None for a node that is not known."""
        move = _MOVES.get(self.node.op_type)
        return None if move is None else move(self)

    def array(self, index: int) -> NDArray[Any] | None:
        """A constant input of the node."""
        value = self.node.inputs[index] if len(self.node.inputs) > index else None
        return None if value is None or value not in self.constants else self.constants.array(value)

    def integers(self, index: int) -> list[int] | None:
        """A constant input of the node, of one axis."""
        array = self.array(index)
        return None if array is None else [int(number) for number in array.reshape(-1)]

    def axes(self, index: int, rank: int) -> list[int] | None:
        """The axes that the node names, counted from the start; None for none, or computed ones."""
        given = self.node.attributes.get_ints("axes") or self.integers(index)
        if not given or not all(-rank <= axis < rank for axis in given):
            return None
        axes = [axis % rank for axis in given]
        return axes if len(set(axes)) == len(axes) else None

    def axis(self, default: int) -> int | None:
        """The axis of the node, counted from the start; None if it is one of tokens."""
        axis, rank = self.node.attributes.get_int("axis", default), len(self.of.shape)
        if axis is None or not -rank <= axis < rank or not self.of.is_within([axis % rank]):
            return None
        return axis % rank


def _negative(move: Move) -> Elements | None:
    return None if move.of.has_constants else move.of.negative()


def _magnitude(move: Move) -> Elements | None:
    if move.of.has_constants:
        return None
    above = np.where(move.of.above < 0, move.of.negative().above, move.of.above)
    return move.of.without_bounds()._replace(above=above)


def _reduced(move: Move) -> Elements | None:
    axes = move.axes(1, len(move.of.shape))
    if axes is None or not move.of.is_within(axes):
        return None
    found = move.of.extreme(axes, largest=move.node.op_type == "ReduceMax")
    keeps = move.node.attributes.get_int("keepdims", 1) != 0
    return found if keeps else _without_axes(found, axes)


def _pooled(move: Move) -> Elements | None:
    """A MaxPool over whole axes."""
    shape, get_ints = move.of.shape, move.node.attributes.get_ints
    kernel = get_ints("kernel_shape") or ()
    auto_pad = move.node.attributes.get_string("auto_pad", "NOTSET")
    plain = auto_pad in {"NOTSET", "VALID"} and not any(get_ints("pads") or ())
    plain = plain and set(get_ints("dilations") or (1,)) == {1}
    first = len(shape) - len(kernel)
    if not plain or move.value.index() or first < 0 or tuple(kernel) != shape[first:]:
        return None
    axes = [axis for axis in range(first, len(shape)) if shape[axis] != 1]
    return (
        move.of.extreme(axes, largest=True) if axes and move.of.is_within(range(first, len(shape))) else None
    )


def _sorted(move: Move) -> Elements | None:
    """TopK: the first element is the largest, and of all of them the last one the smallest; or in reverse."""
    of, axis, get_int = move.of, move.axis(-1), move.node.attributes.get_int
    if axis is None or move.value.index() or of.has_constants:
        return None
    size, given = of.shape[axis], move.integers(1)
    count = given[0] if given else _size_read(move.node.inputs[1], move.constants)
    if not isinstance(count, int) or not 0 < count <= size or (count > 1 and get_int("sorted", 1) == 0):
        return None
    falls = get_int("largest", 1) != 0
    found = of.moved(lambda array: np.take(array, range(count), axis), of.tokens).without_bounds()
    numbers = np.arange(found.low.size).reshape(found.shape)
    for end, largest in ((0, falls), (count - 1, not falls))[: 1 + (count == size)]:
        places = np.append(np.take(numbers, end, axis).reshape(-1), -1)
        ends = of.extreme([axis], largest=largest)
        found = (
            found._replace(above=places[ends.above]) if largest else found._replace(below=places[ends.below])
        )
    return found


def _size_read(value: ir.Value | None, constants: Constants) -> int | None:
    """The size of an axis that is read off a shape, where the file says it."""
    while (node := producer(value, "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")) is not None:
        value = node.inputs[0]
    node = producer(value, "Gather")
    shape = None if node is None else producer(node.inputs[0], "Shape")
    of = None if shape is None or shape.inputs[0] is None else shape.inputs[0].shape
    index = None if node is None or node.inputs[1] is None else constants.scalar(node.inputs[1])
    if of is None or index is None or shape is None or shape.attributes.get_int("start", 0) != 0:
        return None
    size = of[int(index)] if -of.rank() <= index < of.rank() else None
    return size if isinstance(size, int) and "end" not in shape.attributes else None


def _sliced(move: Move) -> Elements | None:
    starts, ends, steps = (move.integers(i) for i in (1, 2, 4))
    axes = move.axes(3, len(move.of.shape))
    if starts is None or ends is None or axes is None or not move.of.is_within(axes):
        return None
    if steps is None:
        if len(move.node.inputs) > 4 and move.node.inputs[4] is not None:
            return None
        steps = [1] * len(axes)
    if min(steps) < 1:
        return None
    index = [slice(None)] * len(move.of.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, end, step)
    found = move.of.moved(lambda array: array[tuple(index)], move.of.tokens)
    return found if found.low.size else None


def _gathered(move: Move) -> Elements | None:
    axis, places = move.axis(0), move.array(1)
    if axis is None or places is None or not places.size:
        return None
    size = move.of.shape[axis]
    if not (-size <= places.min() <= places.max() < size):
        return None
    tokens = (*move.of.tokens[:axis], *(False,) * places.ndim, *move.of.tokens[axis + 1 :])
    return move.of.moved(lambda array: np.take(array, places, axis), tokens)


def _split(move: Move) -> Elements | None:
    found, axis = cut(move.value, move.constants), move.axis(0)
    if found is None or axis is None or not found.start < found.stop <= move.of.shape[axis]:
        return None
    places = range(found.start, found.stop)
    return move.of.moved(lambda array: np.take(array, places, axis), move.of.tokens)


def _transposed(move: Move) -> Elements | None:
    perm = list(move.node.attributes.get_ints("perm") or range(len(move.of.shape))[::-1])
    return move.of.transposed(perm) if sorted(perm) == list(range(len(move.of.shape))) else None


def _reshaped(move: Move) -> Elements | None:
    """Behind a Reshape that leaves each token its elements, as the last axes."""
    of, sizes = move.of, () if move.value.shape is None else tuple(move.value.shape)
    first = next((axis for axis, size in enumerate(of.shape) if size > 1), len(of.shape))
    if any(of.tokens[first:]) or not of.is_ordered:
        return None
    for axis in range(len(sizes), -1, -1):
        own = [size for size in sizes[axis:] if isinstance(size, int)]
        if len(own) != len(sizes) - axis:
            return None
        if math.prod(own) == of.low.size and sizes:
            tokens = (True,) * axis + (False,) * len(own)
            shape = (*(1,) * axis, *own)
            found = of.moved(partial(np.reshape, shape=shape), tokens)
            return found._replace(order=tuple(range(axis)), is_reshaped=True)
    return None


def _squeezed(move: Move) -> Elements | None:
    axes = move.axes(1, len(move.of.shape))
    if axes is None or not move.of.is_within(axes) or any(move.of.shape[axis] != 1 for axis in axes):
        return None
    return _without_axes(move.of, axes)


def _without_axes(of: Elements, axes: Sequence[int]) -> Elements:
    tokens = [is_one for axis, is_one in enumerate(of.tokens) if axis not in axes]
    return of.moved(lambda array: np.squeeze(array, tuple(axes)), tokens)


def _unsqueezed(move: Move) -> Elements | None:
    count = len(move.node.attributes.get_ints("axes") or move.integers(1) or ())
    axes = move.axes(1, len(move.of.shape) + count)
    if axes is None:
        return None
    left = iter(move.of.tokens)
    tokens = [axis not in axes and next(left) for axis in range(len(move.of.shape) + count)]
    return move.of.moved(lambda array: np.expand_dims(array, tuple(axes)), tokens)


_MOVES: dict[str, Callable[[Move], Elements | None]] = {
    "Abs": _magnitude,
    "Flatten": _reshaped,
    "Gather": _gathered,
    "MaxPool": _pooled,
    "Neg": _negative,
    "ReduceMax": _reduced,
    "ReduceMin": _reduced,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Split": _split,
    "SplitToSequence": _split,
    "Squeeze": _squeezed,
    "TopK": _sorted,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}
