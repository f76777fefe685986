"""Make one op of layers that quantise the same activations, such as q, k and v of an attention.

Before:  x -> BitLinear(Wq) -> q,  x -> BitLinear(Wk) -> k,  x -> BitLinear(Wv) -> v
After:   x -> BitLinear(Wq over Wk over Wv) -> Split -> q, k, v

Every row keeps its own scale and bias, so that the numbers are the same bit for bit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx_ir as ir

from bitcc import formats
from bitcc.ops import BitLinear
from bitcc.passes.copies import originals
from bitcc.passes.pack import PackedLayer

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from bitcc.passes.layer import Layer

    Group: TypeAlias = "Sequence[PackedLayer]"


def merge_siblings(packed: Sequence[PackedLayer], graph: ir.Graph) -> list[PackedLayer]:
    """The layers in their order; those that gain by it are one layer in the place of the first.

    A layer joins if it has no more outputs than inputs: what it saves is quantising K numbers once more, what
    it costs is a copy of N outputs by Split. TernaryLinears quantise nothing.

    Args:
        packed: Layers, in graph order.
        graph: The main graph, before it is rewritten.
    """
    same = originals(graph) if len(packed) > 1 else {}
    stored = Counter(id(item.weight) for item in packed)
    groups: dict[Hashable, list[PackedLayer]] = {}
    for i, item in enumerate(packed):
        alone = stored[id(item.weight)] > 1 or item.layer.op.N > item.layer.op.K
        groups.setdefault(i if alone else _shared(item.layer, same) or i, []).append(item)
    return [item for group in groups.values() for item in ([_merged(group)] if _gains(group) else group)]


def _shared(layer: Layer, same: Mapping[ir.Value, ir.Value]) -> Hashable | None:
    """What layers must have in common to be one; None for a layer that stays alone."""
    if not isinstance(layer.op, BitLinear) or layer.x_layout or layer.y_layout or layer.product.y_shape:
        return None
    reshapes = () if layer.restored else tuple(_as_key(node, same) for node in layer.reshapes)
    x = same.get(layer.x, layer.x)
    return layer.node.graph, x, reshapes, replace(layer.op, N=1), layer.x_type, layer.y_type


def _as_key(node: ir.Node, same: Mapping[ir.Value, ir.Value]) -> Hashable:
    """What a node does with its first input."""
    inputs = tuple(value and same.get(value, value) for value in node.inputs[1:])
    return node.op_type, inputs, tuple((a.name, a.value) for a in node.attributes.values())


def _gains(group: Group) -> bool:
    """Whether one op and a Split are faster.

    Measured with as many outputs to copy as inputs that are not quantised again, or fewer: up to a tenth
    faster for a few tokens, as when text is written, and within 4 percent for hundreds. With more outputs it
    is level for a few tokens and slower for hundreds, up to 1.7 times for small layers.
    """
    outputs = sum(item.layer.op.N for item in group)
    return outputs <= (len(group) - 1) * group[0].layer.op.K


def _merged(group: Group) -> PackedLayer:
    siblings = tuple(replace(item, layer=_by_rows(item.layer)) for item in group)
    layers = [item.layer for item in siblings]
    first = _first(layers)
    merged = replace(
        first,
        name="+".join(layer.name for layer in layers),
        op=replace(first.op, N=sum(layer.op.N for layer in layers)),
        w_scale=np.concatenate([layer.w_scale for layer in layers]),
        bias=np.concatenate([layer.bias for layer in layers]),
    )
    return PackedLayer(merged, _stacked(siblings, merged), siblings)


def _first(layers: Sequence[Layer]) -> Layer:
    """Whose output is computed first: by then its own copy of x is there."""
    by_node = {layer.y.producer(): layer for layer in layers}
    return next(by_node[node] for node in layers[0].node.graph or () if node in by_node)


def _by_rows(layer: Layer) -> Layer:
    """With a scale and a bias for each row."""
    w_scale, bias = (np.broadcast_to(v, (layer.op.N,)) for v in (layer.w_scale, layer.bias))
    return replace(layer, w_scale=w_scale, bias=bias)


def _stacked(siblings: Group, layer: Layer) -> ir.LazyTensor:
    """The weights of the siblings below one another, read when they are written."""
    fmt = formats.get(layer.op.weight_format, layer.op.layout_version)
    n, k = layer.op.N, layer.op.K

    def stack() -> ir.TensorProtocol:
        return ir.tensor(fmt.stack([(item.weight.numpy(), item.layer.op.N) for item in siblings], k))

    return ir.LazyTensor(stack, ir.DataType.UINT8, ir.Shape(fmt.packed_shape(n, k)))
