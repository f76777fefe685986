"""Permutations of axes: how a graph's tensor lies against ``[..., columns]``, which is what the ops read.

A layout is a permutation as ``numpy.transpose`` takes it; the empty one is the identity of any rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir

from bitcc.passes.normal_form import before_broadcast, producer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants

    Array = NDArray[Any]

Layout: TypeAlias = tuple[int, ...]

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Ops that give a tensor another shape and leave its elements in their order."""

_UNKNOWN = (0, ir.SymbolicDim(None))  # sizes that say nothing of the other ones


def rank_of(value: ir.Value | None) -> int | None:
    """How many axes a value has; None if that is not known."""
    return None if value is None or value.shape is None else value.shape.rank()


def swapped(rank: int) -> Layout:
    """The transposition of the last two axes."""
    return (*range(rank - 2), rank - 1, rank - 2)


def composed(first: Layout, then: Layout) -> Layout:
    """Two transpositions in one."""
    return _or_empty(tuple(first[i] for i in then)) if first and then else first or then


def inverse(layout: Layout) -> Layout:
    """What undoes a transposition."""
    return tuple(layout.index(i) for i in range(len(layout)))


def transposed(array: Array, layout: Layout) -> Array:
    """A numpy array in that order of axes."""
    return array.transpose(layout) if layout else array


def minimal(x: Layout, y: Layout) -> tuple[Layout, Layout]:
    """The same layer with fewer moves: its tokens stay in the order of ``x``, and identities are empty.

    Args:
        x: What brings the input to [..., K].
        y: What brings [..., N] to the output.
    """
    rank = len(x or y)
    x, y = x or tuple(range(rank)), y or tuple(range(rank))
    ordered = (*sorted(x[:-1]), *x[-1:])
    y = composed(tuple(ordered.index(axis) for axis in x), y)
    return _or_empty(ordered), _or_empty(y)


def _or_empty(layout: Layout) -> Layout:
    return () if layout == tuple(range(len(layout))) else layout


def columns_of_input(x: Layout) -> int:
    """The axis of K, counted from the end."""
    return x[-1] - len(x) if x else -1


def columns_of_output(y: Layout) -> int:
    """The axis of N, counted from the end."""
    return y.index(len(y) - 1) - len(y) if y else -1


def tokens_align(x: Layout, y: Layout) -> bool:
    """Whether every axis but the columns is at the same place in the input and in the output."""
    rank = len(x or y)
    x, y = x or tuple(range(rank)), y or tuple(range(rank))
    return all(x[at] == axis for axis, at in enumerate(y) if at != rank - 1)


def same_tokens(x: ir.Shape | None, y: ir.Shape | None, n: int) -> bool:
    """Whether ``y`` is [..., n] with the leading axes of ``x``, given that it has as many elements.

    One axis may be of a size that is not known: it is what is left.
    """
    if x is None or y is None or x.rank() != y.rank() or y.rank() < 1:
        return False
    unlike = [b for a, b in zip((*x[:-1], n), y, strict=True) if a != b or a in _UNKNOWN]
    return len(unlike) <= 1 and not any(isinstance(b, int) for b in unlike)


def before_token_shape(scale: ir.Value, tensor: ir.Value, constants: Constants) -> ir.Value:
    """The scale of tokens behind what gives it the axes of a tensor, a Reshape included."""
    value = before_broadcast(scale, constants)
    while (node := producer(value, "Reshape")) is not None and is_of_tokens(value, tensor):
        if node.inputs[0] is None:
            break
        value = before_broadcast(node.inputs[0], constants)
    return value


def is_of_tokens(scale: ir.Value, tensor: ir.Value) -> bool:
    """Whether it is [..., 1], or repeated to [..., columns], with the leading axes of the tensor."""
    columns = tensor.shape[-1] if tensor.shape is not None and tensor.shape.rank() else None
    sizes = {1, columns} if isinstance(columns, int) else {1}
    return any(same_tokens(tensor.shape, scale.shape, size) for size in sizes)


def behind_transposes(x: ir.Value, layout: Layout) -> tuple[ir.Value, Layout]:
    """The input behind Transposes, which its own transposition takes in, as long as it needs one."""
    while layout and (found := transposition(x)) is not None and len(found[1]) == len(layout):
        x, layout = found[0], composed(found[1], layout)
    return x, layout


def transposition(value: ir.Value) -> tuple[ir.Value, Layout] | None:
    """(what is transposed, how) if a Transpose makes the value."""
    node = producer(value, "Transpose")
    if node is None or node.inputs[0] is None:
        return None
    inner = node.inputs[0]
    perm: Sequence[int] | None = node.attributes.get_ints("perm")
    if perm is None:
        if inner.shape is None:
            return None
        perm = range(inner.shape.rank())[::-1]
    return (inner, tuple(perm)) if sorted(perm) == list(range(len(perm))) else None
