"""Read integers in one type where exporters mix types in a node, which onnxruntime refuses to load.

torch.onnx writes ``packed >> 2`` of bytes with an int8 result, and numbers of bits as int8 or int64. Only
what has one meaning in every type is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    Array = NDArray[Any]

_OF_BITS = frozenset({"BitwiseAnd", "BitwiseOr", "BitwiseXor", "Concat"})


def in_one_type(node: ir.Node, inputs: Sequence[Array | None]) -> Sequence[Array | None]:
    """The inputs of a node in one type if they mean the same in it; otherwise as they are."""
    arrays = [a for a in inputs if a is not None]
    if len({a.dtype for a in arrays}) < 2 or any(a.dtype.kind not in "iu" for a in arrays):
        return inputs
    if node.op_type == "BitShift":
        return _shift(*arrays) if len(arrays) == len(inputs) == 2 else inputs
    if node.op_type not in _OF_BITS or len(arrays) != len(inputs) or len({a.itemsize for a in arrays}) > 1:
        return inputs
    has_no_sign = [bool((a.view(f"i{a.itemsize}") >= 0).all()) for a in arrays]
    is_result_the_same = any(has_no_sign) if node.op_type == "BitwiseAnd" else all(has_no_sign)
    return [a.view(f"u{a.itemsize}") for a in arrays] if is_result_the_same else inputs


def _shift(x: Array, bits: Array) -> Sequence[Array]:
    inside = x.dtype.kind == "u" and bool(((bits >= 0) & (bits < 8 * x.itemsize)).all())
    return (x, bits.astype(x.dtype)) if inside else (x, bits)
