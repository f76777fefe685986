"""Find what a Loop or Scan picks of constants at each turn: the weights of layers that a graph iterates over.

JAX's ``lax.scan`` over stacked layers and TensorFlow's ``while_loop`` write one body for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir

    Depends = Callable[[ir.Node, set[ir.Value]], bool]

_TURN, _CONDITION = 0, 1  # inputs of a Loop and its body


def picked(model: ir.Model, fixed: set[ir.Value], depends_on: Depends) -> set[ir.Value]:
    """The inputs of bodies that depend on initializers and the number of the turn alone.

    Args:
        model: Whose bodies.
        fixed: Values that depend on initializers alone; what bodies compute of the inputs is added.
        depends_on: Whether a node reads nothing but some values.
    """
    found: set[ir.Value] = set()
    for node in model.graph.all_nodes():
        body = node.attributes.get("body")
        if node.op_type not in {"Loop", "Scan"} or body is None or node.domain not in {"", "ai.onnx"}:
            continue
        inputs = _inputs(node, body.as_graph(), fixed, depends_on)
        found |= inputs
        fixed |= inputs | _computed(body.as_graph(), fixed | inputs, depends_on)
    return found


def _inputs(node: ir.Node, body: ir.Graph, fixed: set[ir.Value], depends_on: Depends) -> set[ir.Value]:
    """Those of one body: carried from turn to turn only if each turn makes them of such inputs again."""
    pairs = list(_fed(node, body))
    inputs = {inside for inside, outside, _ in pairs if outside is None or outside in fixed}
    while True:
        known = fixed | inputs | _computed(body, fixed | inputs, depends_on)
        changed = {inside for inside, _, again in pairs if again is not None and again not in known}
        if changed.isdisjoint(inputs):
            return inputs
        inputs -= changed


def _fed(node: ir.Node, body: ir.Graph) -> Iterator[tuple[ir.Value, ir.Value | None, ir.Value | None]]:
    """(input of the body, what it is at first, what it is in the next turn) where each turn has one."""
    if node.op_type == "Loop":
        yield body.inputs[_TURN], None, None
        first = _CONDITION + 1
        carried = zip(body.inputs[first:], node.inputs[first:], body.outputs[1:], strict=False)
        yield from ((inside, outside, again) for inside, outside, again in carried if outside is not None)
        return
    states = len(node.inputs) - node.attributes.get_int("num_scan_inputs", 0)
    for i, (inside, outside) in enumerate(zip(body.inputs, node.inputs, strict=False)):
        if outside is not None:
            yield inside, outside, body.outputs[i] if i < states else None


def _computed(body: ir.Graph, known: set[ir.Value], depends_on: Depends) -> set[ir.Value]:
    """What the nodes of a body make of known values alone."""
    found: set[ir.Value] = set()
    for node in body:
        if depends_on(node, known | found):
            found.update(node.outputs)
    return found
