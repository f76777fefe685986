"""In which precision a layer computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from bitcc.passes._refused import Refused

if TYPE_CHECKING:
    from bitcc.passes.constants import Constants
    from bitcc.passes.matmul import Product

_OF_ANY_TYPE = frozenset({"IsInf", "IsNaN"})  # TorchScript writes a Cast to double in front of it


def type_of(value: ir.Value, product: Product) -> ir.DataType:
    """The type of a value; where the file does not say, that of what is multiplied.

    Raises:
        Refused: it is not known, or none of the ops'.
    """
    found = value.dtype or product.x.dtype or product.weight.dtype
    if found is None:
        raise Refused(
            f"the type of `{value.name}` is not known", fix="export it with the types of its values"
        )
    if found not in {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}:
        raise Refused(f"it computes in {found.name.lower()}", fix="export the model in float32")
    return found


def check_single(x: ir.Value, y: ir.Value, constants: Constants) -> None:
    """Check that nothing between the input and the output of a layer is in float64: the op is less exact.

    Raises:
        Refused: something is.
    """
    seen: set[ir.Value] = set()
    stack = [y]
    while stack:
        value = stack.pop()
        if value in seen or value is x or value in constants:
            continue
        seen.add(value)
        node = value.producer()
        if node is not None and node.op_type in _OF_ANY_TYPE:
            continue
        to = node.attributes.get_int("to", 0) if node is not None and node.op_type == "Cast" else 0
        if ir.DataType.DOUBLE in {value.dtype, to}:
            raise Refused("a part of it computes in double", fix="export the model in float32")
        stack.extend(v for v in (() if node is None else node.inputs) if v is not None)
