"""Read products with something fused in, as onnxruntime's optimiser writes them, as two nodes.

In the file:  x -> com.microsoft::FusedGemm(activation = "Relu") -> y      x, c -> Gemm -> y
Meanwhile:    x -> Gemm -> Relu -> y                                       x -> Gemm -> Add(c) -> y

where c is computed, a residual for instance. Behind a layer that is packed the second node stays; all others
are fused again.
Source: onnxruntime, gemm_activation_fusion.cc, conv_activation_fusion.cc and matmul_add_fusion.cc.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import onnx_ir as ir

from bitcc.passes.pack import names_of, take_place, unique

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
_SUMMAND = 2  # the input of a Gemm that is added
_CONV_SUMMAND = 3  # the input of a FusedConv that is added in front of the function
_PREFIX = "activation"


class _Fused(NamedTuple):
    """A node that was taken apart.

    Attributes:
        node: Meanwhile the product alone.
        behind: What was fused in.
        domain: Of the node in the file.
        op_type: Of the node in the file.
        attributes: Of the node in the file.
    """

    node: ir.Node
    behind: ir.Node
    domain: str
    op_type: str
    attributes: tuple[ir.Attr, ...]


@contextmanager
def unfused(model: ir.Model) -> Iterator[None]:
    """Take fused products apart; afterwards those that are still there are what they were."""
    names = names_of(model)
    parts = [
        part
        for node in list(model.graph.all_nodes())
        for split in (_without_function, _without_summand)
        if (part := split(node, names)) is not None
    ]
    try:
        yield
    finally:
        for part in reversed(parts):
            if part.node.graph is not None:
                _fuse(part, names)


def _without_function(node: ir.Node, names: set[str]) -> _Fused | None:
    if node.domain != "com.microsoft" or node.op_type not in _PRODUCTS:
        return None
    op_type, parameters = node.attributes.get_string(_PREFIX, "") or "", _parameters(node)
    if parameters is None:
        return None
    part = _split(node, op_type, {k: ir.AttrFloat32(k, v) for k, v in parameters.items()}, names)
    node.domain, node.op_type = "", _PRODUCTS[node.op_type]
    for attribute in part.attributes:
        if attribute.name.startswith(_PREFIX):
            del node.attributes[attribute.name]
    return part


def _without_summand(node: ir.Node, names: set[str]) -> _Fused | None:
    if node.domain != "" or node.op_type != "Gemm" or len(node.inputs) <= _SUMMAND:
        return None
    summand = node.inputs[_SUMMAND]
    if summand is None or summand.is_initializer() or node.attributes.get_float("beta", 1.0) != 1:
        return None
    part = _split(node, "Add", {}, names)
    part.behind.resize_inputs(2)
    part.behind.replace_input_with(1, summand)
    node.replace_input_with(_SUMMAND, None)
    return part


def _split(node: ir.Node, op_type: str, attributes: Mapping[str, ir.Attr], names: set[str]) -> _Fused:
    """Put a node of that type between the product and all that reads it."""
    graph, y = node.graph, node.outputs[0]
    behind = ir.Node("", op_type, [y], attributes.values(), name=f"{node.name}_{op_type}")
    name = unique(f"{y.name}_before_{op_type}", names)
    if graph is not None:
        graph.insert_after(node, behind)
    take_place(y, behind.outputs[0], names)
    behind.replace_input_with(0, y)
    y.name = name
    return _Fused(node, behind, node.domain, node.op_type, tuple(node.attributes.values()))


def _fuse(part: _Fused, names: set[str]) -> None:
    node, behind, graph = part.node, part.behind, part.behind.graph
    if len(behind.inputs) > 1:
        node.replace_input_with(_SUMMAND, behind.inputs[1])
    behind.replace_input_with(0, None)
    take_place(behind.outputs[0], node.outputs[0], names)
    if graph is not None:
        graph.remove(behind, safe=True)
    node.domain, node.op_type = part.domain, part.op_type
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
        has_summand = len(node.inputs) > _CONV_SUMMAND and node.inputs[_CONV_SUMMAND] is not None
        known = not has_summand and given <= {"activation_params"} and len(values) == len(names)
        return dict(zip(names, values, strict=True)) if known else None
    if given != {f"{_PREFIX}_{name}" for name in names}:
        return None
    return {name: node.attributes[f"{_PREFIX}_{name}"].as_float() for name in names}
