"""``--numerics faithful``: the activation codes that a half-precision model computes, not better ones.

Each result of the quantizer - absolute maximum and epsilon, reciprocal, scale, x * scale - is rounded to the
type that it has in the graph. Quantizers that compute in float32 are faithful as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from bitcc.ops import ActType, BitLinear
from bitcc.passes._refused import Refused
from bitcc.passes.between import in_half_precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bitcc.passes.constants import Constants
    from bitcc.passes.layer import Layer


_WIDTH = {ir.DataType.BFLOAT16: 8, ir.DataType.FLOAT16: 11, ir.DataType.FLOAT: 24, ir.DataType.DOUBLE: 53}
_EXACT = frozenset(
    {
        "Abs",
        "Clip",
        "Gather",
        "Identity",
        "Max",
        "Min",
        "ReduceMax",
        "Reshape",
        "Round",
        "Squeeze",
        "Unsqueeze",
    }
)


def faithful(layer: Layer, constants: Constants) -> Layer:
    """The layer with the quantizer rounding to the type in which the original computes it.

    Raises:
        Refused: that is not one type, or none that the op rounds to.
    """
    if not isinstance(layer.op, BitLinear) or layer.codes is None:
        return layer
    if layer.x_layout and in_half_precision(layer, constants):
        raise Refused(
            "its activations are transposed, and their codes cannot be compared", fix="--numerics fp32"
        )
    types = set(_rounded_to(layer.codes, layer.x, constants))
    known = [t for t in types if t is not None and t.value in set(ActType)]
    if len(types) != 1 or not known:
        names = " and ".join(sorted("an unknown type" if t is None else str(t.numpy()) for t in types))
        raise Refused(
            f"its activation quantizer computes in {names}, which the op cannot reproduce",
            fix="--numerics fp32",
        )
    return replace(layer, op=replace(layer.op, act_type=ActType(known[0].value)))


def _rounded_to(codes: ir.Value, x: ir.Value, constants: Constants) -> Iterator[ir.DataType | None]:
    """The type of each result between ``x`` and the codes that can be rounded."""
    stack, seen = [codes], {x}
    while stack:
        value = stack.pop()
        if value in seen or value in constants:
            continue
        seen.add(value)
        node = value.producer()
        if node is None:
            continue
        if node.op_type == "Cast":
            if not _is_exact_cast(node):
                yield value.dtype
        elif node.op_type not in _EXACT:
            yield value.dtype
        stack.extend(v for v in node.inputs if v is not None)


def _is_exact_cast(node: ir.Node) -> bool:
    given = None if node.inputs[0] is None else node.inputs[0].dtype
    to = node.outputs[0].dtype
    if given is None or to is None or given not in _WIDTH or to not in _WIDTH:
        return False
    # from bfloat16 every float type but float16 is wider; to bfloat16 none is exact
    return given == to or (_WIDTH[given] < _WIDTH[to] and to != ir.DataType.FLOAT16)
