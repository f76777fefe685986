"""Evaluate onnxruntime's own QuantizeLinear and DequantizeLinear, which are those of the standard.

Its quantizer writes them for types that the opset of a model has not yet, as int4 and int16 below opset 21.
Source: onnxruntime, docs/ContribOperators.md, com.microsoft.DequantizeLinear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    import onnx

_DOMAIN = "com.microsoft"
_OPS = frozenset({"DequantizeLinear", "QuantizeLinear"})
_OPSET = 21  # in which the standard has all that they do


def is_contrib_quantizer(node: ir.Node) -> bool:
    """Whether the node is one of them."""
    return node.domain == _DOMAIN and node.op_type in _OPS


def as_standard(node: ir.Node, opset: int) -> tuple[onnx.NodeProto, int]:
    """A node as one of the standard domain, and the opset that has it.

    Args:
        node: Of the standard domain, or one of these.
        opset: Of the model.
    """
    proto = ir.to_proto(node)
    if is_contrib_quantizer(node):
        proto.domain, opset = "", max(opset, _OPSET)
    return proto, opset
