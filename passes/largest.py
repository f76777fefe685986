"""Read the largest magnitude of a token however it is found: sorted, in parts, beside the negatives.

Comparisons and moves make nothing but elements of ``x``, of ``-x``, and constants. What is at least all of
them is their maximum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bitcc.passes.bounds import clamped, filled_with
from bitcc.passes.element_moves import Move
from bitcc.passes.elements import NONE, Elements, joined
from bitcc.passes.finite import numbers_of
from bitcc.passes.layout import inverse, transposition
from bitcc.passes.normal_form import FLOATS, producer, same, skip

if TYPE_CHECKING:
    import onnx_ir as ir

    from bitcc.passes.constants import Constants

_DEPTH = 16  # nodes behind one another
_MOST_COLUMNS = 1 << 20


class Largest(NamedTuple):
    """``max(max|x|, floor)`` of each token.

    Attributes:
        floor: Zero where there is none.
        dropped: Whether the tensor of it has no axis for the columns.
        is_reshaped: Whether the axes of tokens may be others than those of ``x``.
    """

    floor: float
    dropped: bool
    is_reshaped: bool


def largest_magnitude(value: ir.Value, x: ir.Value, constants: Constants) -> Largest | None:
    """What a value is if it is the largest magnitude of each token of ``x``; None if it is something else.

    Args:
        value: What to read.
        x: [..., K].
        constants: Of the model.
    """
    columns = x.shape[-1] if x.shape is not None and x.shape.rank() else None
    if x.shape is None or not isinstance(columns, int) or not 0 < columns <= _MOST_COLUMNS:
        return None
    found = _Reader(x, x.shape.rank(), columns, constants).read(value)
    if found is None or not found.is_ordered or found.low.size != 1 or (found.above == NONE).any():
        return None
    floor = float(found.low[0]) if found.has_constants else 0.0
    if found.has_constants and not found.low[0] == found.most[0] >= 0:
        return None
    dropped = found.is_reshaped or all(found.tokens)
    if not all(found.tokens[: x.shape.rank() - 1]):  # the columns are in front of a token
        return None
    return Largest(floor, dropped, found.is_reshaped)


class _Reader:
    """Follows the elements of ``x`` to other values."""

    def __init__(self, x: ir.Value, rank: int, columns: int, constants: Constants) -> None:
        self._x, self._rank, self._columns, self._constants = x, rank, columns, constants
        self._known: dict[ir.Value, Elements | None] = {}
        self._front = transposition(skip(x, constants))

    def read(self, value: ir.Value | None, depth: int = _DEPTH) -> Elements | None:
        """What is known of a value; None for one that is not made of ``x`` by comparisons and moves."""
        if value is None:
            return None
        value = numbers_of(value, self._constants)
        if value not in self._known:
            self._known[value] = self._read(value, depth)
        return self._known[value]

    def _read(self, value: ir.Value, depth: int) -> Elements | None:
        if same(value, self._x, self._constants):
            return Elements.of_columns(self._rank, self._columns)
        if self._front is not None and same(value, self._front[0], self._constants):
            perm = inverse(self._front[1])
            return Elements.of_columns(self._rank, self._columns).transposed(perm)
        node = value.producer()
        is_float = value.dtype is None or value.dtype in FLOATS
        if node is None or not depth or not is_float or node.domain not in {"", "ai.onnx"}:
            return None
        if producer(value, "Clip", "Max", "Min") is node:
            return self._bounded(value, depth - 1) or self._extreme(node, depth - 1)
        if producer(value, "Concat") is node:
            return self._joined(node, depth - 1)
        if producer(value, "SequenceAt") is node:
            node = producer(node.inputs[0], "SplitToSequence")
        of = None if node is None or not node.inputs else self.read(node.inputs[0], depth - 1)
        return None if node is None or of is None else Move(value, node, of, self._constants).follow()

    def _bounded(self, value: ir.Value, depth: int) -> Elements | None:
        """Behind a lower bound."""
        bounds = clamped(value, self._constants)
        of = None if bounds is None or bounds.high is not None else self.read(bounds.value, depth)
        if of is None or bounds is None or bounds.low is None:
            return None
        low, most = (np.maximum(v, bounds.low) for v in (of.low, of.most))
        return of._replace(below=np.full_like(of.below, NONE), low=low, most=most)

    def _extreme(self, node: ir.Node, depth: int) -> Elements | None:
        """The largest or the smallest of two tensors, element by element."""
        parts = [self.read(v, depth) for v in node.inputs]
        known = [of for of in parts if of is not None]
        if node.op_type == "Clip" or len(known) != len(parts) or any(of[:3] != known[0][:3] for of in known):
            return None
        tokens = known[0].tokens
        beside = [of.moved(lambda array: array[None], (False, *tokens)) for of in known]
        found = joined(beside, 0).extreme([0], largest=node.op_type == "Max")
        return found.moved(lambda array: array[0], tokens)

    def _joined(self, node: ir.Node, depth: int) -> Elements | None:
        parts = [None if v is None else self._number(v) or self.read(v, depth) for v in node.inputs]
        known = [of for of in parts if of is not None]
        axis = node.attributes.get_int("axis", 0) or 0
        if len(known) != len(parts) or not -len(known[0].shape) <= axis < len(known[0].shape):
            return None
        axis %= len(known[0].shape)
        others = {(of.tokens, of.order, of.shape[:axis], of.shape[axis + 1 :]) for of in known}
        return joined(known, axis) if len(others) == 1 and known[0].is_within([axis]) else None

    def _number(self, value: ir.Value) -> Elements | None:
        """A tensor [..., 1] of one number."""
        number = filled_with(value, self._constants)
        shape = value.shape
        if number is None or shape is None or shape.rank() != self._rank or shape[-1] != 1:
            return None
        return Elements.of_number(self._rank, self._columns, number)
