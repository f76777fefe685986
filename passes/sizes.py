"""How large a constant would be, asked before it is computed: a few bytes can stand for terabytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx
import onnx_ir as ir

from bitcc.errors import first_line
from bitcc.passes._refused import Refused
from bitcc.passes.contrib_quantizers import as_standard

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

_GROWTH = 64  # bytes of a value for each byte that is stored: two bits to float32 is 16, int64 codes are 32
_ALLOWANCE = 64 << 20  # bytes
_ITEM = 8  # bytes, of the largest element
_SHAPES = 1024  # elements; what a size depends on is no larger
_NEVER_GROW = frozenset({"Constant", "NonZero", "Compress", "Unique"})
_ELEMENTWISE = frozenset(  # also with types that the op does not define, as exporters write, or no inference
    {"Abs", "Add", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Ceil", "Clip", "Div", "Equal"}
    | {"Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mul", "Neg"}
    | {"Reciprocal", "Round", "Sign", "Sub", "Where"}
)


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def limit(order: Sequence[ir.Node], value: ir.Value) -> int:
    """Bytes that each value on the way to a constant may take, in proportion to what the file stores for it.

    Args:
        order: The nodes that it depends on.
        value: The constant.
    """
    leaves = {v for node in order for v in node.inputs if v is not None} | {value}
    tensors = [v.const_value for v in leaves if v.const_value is not None]
    tensors += [
        a.value for node in order for a in node.attributes.values() if a.type == ir.AttributeType.TENSOR
    ]
    stored = sum(tensor.nbytes for tensor in tensors if tensor.dtype != ir.DataType.STRING)
    return _ALLOWANCE + _GROWTH * stored


def check_broadcast(node: ir.Node, inputs: Iterable[_Shaped | None], most: int) -> None:
    """Check that what the inputs are broadcast to has no more bytes than ``most``.

    Raises:
        Refused: it has.
        ValueError: they are not broadcast to anything.
    """
    shapes = [array.shape for array in inputs if array is not None]
    _check(node, math.prod(np.broadcast_shapes(*shapes)), most)


def check_outputs(node: ir.Node, inputs: Sequence[Array | None], opset: int, most: int) -> None:
    """Check that a node of the standard domain, or one like it, makes no output of more than ``most`` bytes.

    Raises:
        Refused: it would, or its size cannot be told.
    """
    if node.op_type in _NEVER_GROW:
        return
    given = zip(node.inputs, inputs, strict=True)
    arrays = {str(v.name): array for v, array in given if v is not None and array is not None}
    proto, opset = as_standard(node, opset)
    try:
        types = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, opset, ""),
            proto,
            {name: _type(array) for name, array in arrays.items()},
            {n: onnx.numpy_helper.from_array(a, n) for n, a in arrays.items() if _may_be_a_shape(a)},
            opset_imports=[onnx.helper.make_opsetid("", opset)],
        )
        elements = max(_count(types[str(v.name)]) for v in node.outputs if v.name)
    except Exception as error:  # the op does not take these types, or says nothing of its output
        if node.op_type == "Range" and None not in inputs:
            _check(node, _steps(*(float(a.reshape(())) for a in inputs if a is not None)), most)
            return
        if node.op_type not in _ELEMENTWISE:
            reason = f"the size of the constant node `{node.name}` ({node.op_type}) cannot be told"
            raise Refused(f"{reason}: {first_line(error)}") from error
        check_broadcast(node, inputs, most)
    else:
        _check(node, elements, most)


def _steps(start: float, limit: float, delta: float) -> int:
    """How many numbers a Range has."""
    return max(0, math.ceil((limit - start) / delta))


def _check(node: ir.Node, elements: int, most: int) -> None:
    if (size := _ITEM * elements) > most:
        reason = f"the constant node `{node.name}` ({node.op_type}) would make {size >> 20} MB"
        raise Refused(reason, fix="export the weights as a plain tensor")


def _may_be_a_shape(array: Array) -> bool:
    return array.size <= _SHAPES and array.dtype.kind in "iuf"


def _type(array: Array) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(ir.DataType.from_numpy(array.dtype), array.shape)


def _count(value: onnx.TypeProto) -> int:
    dims = value.tensor_type.shape.dim
    if not value.tensor_type.HasField("shape") or not all(d.HasField("dim_value") for d in dims):
        raise ValueError(value)
    return math.prod(d.dim_value for d in dims)
