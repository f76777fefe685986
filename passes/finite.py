"""Look through what replaces NaN and infinity, as ``nan_to_num`` does: it leaves every number as it is.

Quantizers are read so, and nothing else: the proof runs tokens with NaN and infinity through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitcc.passes.normal_form import producer, skip

if TYPE_CHECKING:
    import onnx_ir as ir

    from bitcc.passes.constants import Constants

_DEPTH = 8  # nodes behind one another
_NEVER = frozenset({"IsInf", "IsNaN"})
_SAME = frozenset({"Cast", "Expand", "Identity", "Reshape", "Unsqueeze"})


def numbers_of(value: ir.Value, constants: Constants) -> ir.Value:
    """The value behind all of that, and behind what ``skip`` looks behind."""
    while True:
        value = skip(value, constants)
        node = producer(value, "Where")
        kept = None if node is None else of_numbers(node, constants)
        if kept is None:
            return value
        value = kept


def of_numbers(node: ir.Node, constants: Constants) -> ir.Value | None:
    """What a Where selects if all that its condition tests is finite; None if that cannot be told."""
    if producer(node.outputs[0], "Where") is None or len(node.inputs) != 3:
        return None
    holds = _holds(node.inputs[0], constants, _DEPTH)
    return None if holds is None else node.inputs[1 if holds else 2]


def _holds(condition: ir.Value | None, constants: Constants, depth: int) -> bool | None:
    """Whether a condition holds for finite numbers; None if that cannot be told."""
    node = None if condition is None else condition.producer()
    if node is None or not depth or node.domain not in {"", "ai.onnx"}:
        return None
    if node.op_type in _NEVER:
        return False
    if node.op_type == "Equal":
        return _are_equal(node, constants)
    if node.op_type not in {"And", "Or", "Not", *_SAME}:
        return None
    if node.op_type in {"And", "Or"}:
        parts = [_holds(value, constants, depth - 1) for value in node.inputs]
        decisive = node.op_type == "Or"
        return decisive if decisive in parts else None if None in parts else not decisive
    found = _holds(node.inputs[0], constants, depth - 1)
    return None if found is None else found is not (node.op_type == "Not")


def _are_equal(node: ir.Node, constants: Constants) -> bool | None:
    """That of a number and itself, which NaN is not, or of a number and infinity."""
    first, second = node.inputs
    if first is second:
        return True
    numbers = (constants.scalar(first), constants.scalar(second))
    return False if any(number is not None and np.isinf(number) for number in numbers) else None
