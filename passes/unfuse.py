"""Read products with an activation function fused in, as onnxruntime's optimiser writes them, as two nodes.

In the file:  x -> com.microsoft::FusedGemm(activation = "Relu") -> y
Meanwhile:    x -> Gemm -> Relu -> y

Behind a layer that is packed the function stays a node of its own; all others are fused again.
Source: onnxruntime, gemm_activation_fusion.cc and conv_activation_fusion.cc.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import onnx_ir as ir

from bitcc.passes.pack import names_of, take_place, unique

if TYPE_CHECKING:
    from collections.abc import Iterator

_PRODUCTS = {"FusedGemm": "Gemm", "FusedConv": "Conv"}
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}
_SUMMAND = 3  # the input of a FusedConv that is added in front of the function
_PREFIX = "activation"


class _Fused(NamedTuple):
    """A node that was taken apart.

    Attributes:
        node: Meanwhile the product.
        function: The node of the activation function.
        op_type: Of the node in the file.
        attributes: Of the node in the file.
    """

    node: ir.Node
    function: ir.Node
    op_type: str
    attributes: tuple[ir.Attr, ...]


@contextmanager
def unfused(model: ir.Model) -> Iterator[None]:
    """Take fused products apart; afterwards those that are still there are what they were."""
    names = names_of(model)
    nodes = [node for node in model.graph.all_nodes() if node.domain == "com.microsoft"]
    parts = [part for node in nodes if (part := _split(node, names)) is not None]
    try:
        yield
    finally:
        for part in parts:
            if part.node.graph is not None:
                _fuse(part, names)


def _split(node: ir.Node, names: set[str]) -> _Fused | None:
    name, parameters = node.attributes.get_string(_PREFIX, "") or "", _parameters(node)
    if node.op_type not in _PRODUCTS or parameters is None or node.graph is None:
        return None
    y = node.outputs[0]
    function = ir.Node(
        "", name, [y], [ir.AttrFloat32(k, v) for k, v in parameters.items()], name=f"{node.name}_{name}"
    )
    before = f"{y.name}_before_{name}"
    node.graph.insert_after(node, function)
    take_place(y, function.outputs[0], names)
    function.replace_input_with(0, y)
    y.name = unique(before, names)
    part = _Fused(node, function, node.op_type, tuple(node.attributes.values()))
    node.domain, node.op_type = "", _PRODUCTS[node.op_type]
    for attribute in part.attributes:
        if attribute.name.startswith(_PREFIX):
            del node.attributes[attribute.name]
    return part


def _fuse(part: _Fused, names: set[str]) -> None:
    node, function, graph = part.node, part.function, part.function.graph
    function.replace_input_with(0, None)
    take_place(function.outputs[0], node.outputs[0], names)
    if graph is not None:
        graph.remove(function, safe=True)
    node.domain, node.op_type = "com.microsoft", part.op_type
    node.attributes.clear()
    node.attributes.update({attribute.name: attribute for attribute in part.attributes})


def _parameters(node: ir.Node) -> dict[str, float] | None:
    """Of the activation function; None if it, or something else that is fused in, is not known."""
    names = _PARAMETERS.get(node.attributes.get_string(_PREFIX, "") or "")
    given = {n for n in node.attributes if n.startswith(_PREFIX)} - {_PREFIX}
    if names is None:
        return None
    if node.op_type == "FusedConv":
        values = node.attributes.get_floats("activation_params") or ()
        has_summand = len(node.inputs) > _SUMMAND and node.inputs[_SUMMAND] is not None
        known = not has_summand and given <= {"activation_params"} and len(values) == len(names)
        return dict(zip(names, values, strict=True)) if known else None
    if given != {f"{_PREFIX}_{name}" for name in names}:
        return None
    return {name: node.attributes[f"{_PREFIX}_{name}"].as_float() for name in names}
