"""How large a graph is with its functions inlined, asked before: functions that call each other multiply."""

from __future__ import annotations

from collections import Counter
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from bitcc.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

_MOST_NODES = 1 << 19
_MOST_NAMES = 1 << 26  # that are looked at to find a free one for each node: a minute


def check_calls(model: ir.Model, functions: Iterable[ir.Function]) -> None:
    """Check that a model with these functions inlined is one that can be handled.

    Args:
        model: Whose main graph calls them.
        functions: That are to be inlined.

    Raises:
        ModelError: there would be too many nodes, or a function calls itself.
    """
    bodies = {function.identifier(): list(function.all_nodes()) for function in functions}
    calls = {caller: Counter(node.op_identifier() for node in body) for caller, body in bodies.items()}
    sorter = TopologicalSorter({caller: called.keys() & bodies.keys() for caller, called in calls.items()})
    try:
        callers_first = list(sorter.static_order())[::-1]
    except CycleError as error:
        circle = " -> ".join(f"`{name}`" for _, name, _ in error.args[1])
        raise ModelError(f"its functions call each other in a circle: {circle}") from error
    copies = Counter(node.op_identifier() for node in model.graph.all_nodes())
    number, names, most = copies.total(), 0, 0
    for caller in callers_first:
        here = copies[caller]
        for called, times in calls[caller].items():
            copies[called] += times * here
        number += len(bodies[caller]) * here
        names += len(bodies[caller]) * here**2  # onnx_ir tries those of all earlier copies first
        most = max(most, here)
    if number > _MOST_NODES or names > _MOST_NAMES:
        raise ModelError(
            f"inlined, its functions have {number} nodes, and up to {most} copies of each",
            hint="export it without functions, or inline them with onnx.inliner.inline_local_functions",
        )
