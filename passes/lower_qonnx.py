"""Write QONNX's quantizers in standard ops, with the same arithmetic, so that every runtime takes the model.

Before:  x -> Quant(scale, zero_point, bits) -> y
After:   x -> Div(scale) -> Add(zero_point) -> Clip -> Round -> Sub(zero_point) -> Mul(scale) -> y
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx_ir as ir

from bitcc.passes import qonnx
from bitcc.passes.pack import names_of, unique

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from bitcc.passes.constants import Constants

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})
_ROUNDING = {"ROUND": "Round", "HALF_EVEN": "Round", "CEIL": "Ceil", "FLOOR": "Floor"}


def lower_quantizers(model: ir.Model, constants: Constants) -> None:
    """Rewrite the quantizers of a model in place, as far as standard ops compute what they do."""
    names = names_of(model)
    for node in [node for node in model.graph.all_nodes() if qonnx.is_quantizer(node)]:
        found = _read(node, constants)
        graph = node.graph
        if found is None or graph is None:
            continue
        nodes, y = _written(found)
        for made in nodes:
            for value in made.outputs:
                value.name = unique(f"{node.outputs[0].name}_{made.op_type}", names)
                value.type = node.outputs[0].type
        ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, node.outputs, [y])
    used = {node.domain for graph in model.graphs() for node in graph}
    used |= {node.domain for function in model.functions.values() for node in function.all_nodes()}
    for domain in qonnx.DOMAINS - used:
        model.opset_imports.pop(domain, None)


class _Quantizer(NamedTuple):
    """What standard ops compute of a quantizer.

    Attributes:
        x: Its input.
        scale: Of the same type.
        zero_point: Of the same type; None for zero.
        bounds: Of the codes; None for the signs alone.
        rounding: The op that rounds.
    """

    x: ir.Value
    scale: ir.Value
    zero_point: ir.Value | None = None
    bounds: tuple[float, float] | None = None
    rounding: str = ""


def _read(node: ir.Node, constants: Constants) -> _Quantizer | None:
    x, scale, *others = node.inputs
    if x is None or scale is None or scale.dtype not in _FLOATS or x.dtype not in {None, scale.dtype}:
        return None
    if node.op_type == "BipolarQuant":
        return None if others else _Quantizer(x, scale)
    bits = constants.scalar(others[1]) if len(others) == 2 else None
    rounding = _ROUNDING.get((node.attributes.get_string("rounding_mode", "ROUND") or "").upper())
    zero_point = others[0] if others else None
    if bits is None or bits < 1 or rounding is None or zero_point is None or zero_point.dtype != scale.dtype:
        return None
    if constants.scalar(zero_point) == 0:
        zero_point = None
    return _Quantizer(x, scale, zero_point, qonnx.bounds(node, bits), rounding)


def _written(q: _Quantizer) -> tuple[list[ir.Node], ir.Value]:
    """(nodes, what they make)."""
    tape = ir.tape.Tape()
    dtype = (q.scale.dtype or ir.DataType.FLOAT).numpy()

    def number(value: ArrayLike) -> ir.Value:
        return tape.op("Constant", [], {"value": ir.tensor(np.asarray(value, dtype))})

    scaled = tape.op("Div", [q.x, q.scale])
    if q.zero_point is not None:
        scaled = tape.op("Add", [scaled, q.zero_point])
    if q.bounds is None:
        levels = tape.op("Where", [tape.op("GreaterOrEqual", [scaled, number(0)]), number(1), number(-1)])
    else:
        low, high = q.bounds
        levels = tape.op(q.rounding, [tape.op("Clip", [scaled, number(low), number(high)])])
    if q.zero_point is not None:
        levels = tape.op("Sub", [levels, q.zero_point])
    y = tape.op("Mul", [levels, q.scale])
    return list(tape.nodes), y
