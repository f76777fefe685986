"""Replace detected layers by ``BitLinear`` and ``TernaryLinear`` nodes with packed weights.

Tensors in another layout than [..., columns] get a Transpose in front or behind.

Before:  x -> Abs, ReduceMax, ..., Round, Clip, Div -> MatMul(weight quantizer) -> Mul, Add -> y
After:   x -> bitcc::BitLinear(packed W, w_scale, bias) -> y, and the bodies of the ops in the model
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from bitcc import formats, function_body, ops, ternary_linear
from bitcc.passes.shape_readers import read_shape_of
from bitcc.ternary_linear import TERNARY_LINEAR, TernaryLinear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bitcc.formats import WeightFormat
    from bitcc.passes.constants import Constants
    from bitcc.passes.layer import Layer

_FIRST_IR_WITH_FUNCTIONS = 8


@dataclass(frozen=True)
class PackedLayer:
    """A layer whose codes have been packed; the dense codes are no longer held.

    Attributes:
        layer: What was found.
        weight: uint8, packed, in memory or in a file.
        siblings: The layers whose rows these are, one below the other; empty for a layer of its own.
    """

    layer: Layer
    weight: ir.TensorProtocol
    siblings: tuple[PackedLayer, ...] = ()

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The layers as they were found."""
        return tuple(item.layer for item in self.siblings) or (self.layer,)


def replace_layers(model: ir.Model, packed: Sequence[PackedLayer], constants: Constants) -> None:
    """Rewrite the model in place; nodes and initializers that nothing uses any more are removed."""
    if not packed:
        return
    dead: list[ir.Node] = []
    outputs: dict[ir.Value, ir.Value] = {}  # a layer may read what an earlier one computes
    names = names_of(model)
    ones = ir.tensor(ops.ONE)  # one for all layers without a norm
    for item in packed:
        dead += [node for part in item.parts if (node := part.y.producer()) is not None]
        x = outputs.get(item.layer.x, item.layer.x)
        parts = [replace(part, x=outputs.get(part.x, part.x)) for part in item.parts]
        read_shape_of(x, parts, constants)
        outputs.update(_replace(model, item, names, x, ones))
    remove_dead(dead)
    opset = model.opset_imports[""]
    for op in dict.fromkeys(type(item.layer.op) for item in packed):
        (fmt,) = {_format(item.layer) for item in packed if isinstance(item.layer.op, op)}
        function = ir.serde.deserialize_function(_OPS[op][1](opset, fmt))
        model.functions[function.identifier()] = function
    model.opset_imports[ops.DOMAIN] = ops.OPSET
    model.ir_version = _lowest_ir_version(model)


def _format(layer: Layer) -> WeightFormat:
    return formats.get(layer.op.weight_format, layer.op.layout_version)


def _lowest_ir_version(model: ir.Model) -> int:
    """What the file needs rather than what the exporter wrote, so that older runtimes load it too."""
    written = max(model.ir_version, _FIRST_IR_WITH_FUNCTIONS)
    if _is_new(model):
        return written
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    needed = onnx.helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    return min(written, max(needed, _FIRST_IR_WITH_FUNCTIONS))


def _is_new(model: ir.Model) -> bool:
    """Whether a tensor is of a type, or a function of an overload, that old files do not know."""
    nodes = [node for graph in model.graphs() for node in graph]
    values = [v for graph in model.graphs() for v in (*graph.inputs, *graph.initializers.values())]
    values += [v for node in nodes for v in node.outputs]
    attributes = [a for node in nodes for a in node.attributes.values() if not a.is_ref()]
    types = {v.dtype for v in values} | {a.value for a in attributes if a.name == "to"}
    types |= {a.value.dtype for a in attributes if a.type == ir.AttributeType.TENSOR}
    overloaded = any(function.overload for function in model.functions.values())
    return overloaded or any(isinstance(t, int) and t > ir.DataType.BFLOAT16 for t in types)


def names_of(model: ir.Model) -> set[str]:
    """Every name of a value in any graph of the model."""
    values = [v for graph in model.graphs() for node in graph for v in node.outputs]
    values += [v for graph in model.graphs() for v in (*graph.inputs, *graph.initializers.values())]
    return {str(v.name) for v in values}


def unique(name: str, names: set[str]) -> str:
    """The name, or a longer one that is not known yet; it is from now on."""
    while name in names:
        name += "_bitcc"
    names.add(name)
    return name


def _replace(
    model: ir.Model, item: PackedLayer, names: set[str], x: ir.Value, ones: ir.TensorProtocol
) -> dict[ir.Value, ir.Value]:
    """Put the op before the node that made its output: {old: new} for each output of the layer."""
    layer, y = item.layer, item.layer.y
    last, graph = y.producer(), y.graph
    if last is None or not isinstance(graph, ir.Graph):
        raise ValueError(f"the output of layer `{layer.name}` has no producer")
    wide = ir.DataType.FLOAT
    casts = model.opset_imports[""] >= function_body.CASTS_SINCE
    computed = layer.x_type if casts and layer.x_type == layer.y_type else wide
    if layer.x_layout:
        x = _transpose(x, layer.x_layout, unique(f"{layer.name}_x_rows", names), graph, before=last)
    for node in () if layer.restored else layer.reshapes:
        x = _again(node, x, unique(f"{layer.name}_x_rows", names), graph, before=last)
    if layer.x_type != computed:
        x = _cast(x, computed, unique(f"{layer.name}_x_as_float", names), graph, before=last)
    inputs = [x, *_register(model.graph, item, names, ones)]
    attributes = [ir.Attr(k, _TYPES[type(v)], v) for k, v in layer.op.attributes().items()]
    op_type, _ = _OPS[type(layer.op)]
    node = ir.Node(ops.DOMAIN, op_type, inputs, attributes, name=layer.name)
    output = node.outputs[0]
    output.name = unique(f"{layer.name}_y", names)
    output.type = ir.TensorType(computed)
    split = layer.product.y_shape
    rows = None if y.shape is None or layer.y_layout else y.shape[: split.count(0) or -1]
    output.shape = None if rows is None else ir.Shape([*rows, layer.op.N])
    graph.insert_before(last, node)
    if split:
        sizes = _initializer(ir.tensor(split), unique(f"{layer.name}.y_shape", names), model.graph)
        output = _reshape(output, sizes, unique(f"{layer.name}_y_split", names), graph, before=last)
    if layer.y_layout:
        output = _transpose(
            output, layer.y_layout, unique(f"{layer.name}_y_columns", names), graph, before=last
        )
    if layer.y_type != computed:
        output = _cast(output, layer.y_type, unique(f"{layer.name}_y_cast", names), graph, before=last)
    outputs = _split(output, item, names, graph, before=last) if item.siblings else (output,)
    replaced = {part.y: new for part, new in zip(item.parts, outputs, strict=True)}
    for old, new in replaced.items():
        take_place(old, new, names)
    return replaced


def take_place(old: ir.Value, new: ir.Value, names: set[str]) -> None:
    """All that the file says of the old value is true of the new one."""
    name, new.type, new.shape = old.name, old.type, old.shape
    new.doc_string = old.doc_string
    new.metadata_props.update(old.metadata_props)
    new.meta.update(old.meta)  # quantization annotations
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name, new.name = unique(f"{name}_replaced", names), name


_OPS: dict[type, tuple[str, Callable[[int, WeightFormat], onnx.FunctionProto]]] = {
    ops.BitLinear: (ops.BIT_LINEAR, function_body.function),
    TernaryLinear: (TERNARY_LINEAR, ternary_linear.function),
}
_TYPES = {int: ir.AttributeType.INT, float: ir.AttributeType.FLOAT, str: ir.AttributeType.STRING}


def _register(
    graph: ir.Graph, item: PackedLayer, names: set[str], ones: ir.TensorProtocol
) -> Iterator[ir.Value]:
    """The constants of a layer in the main graph, where every body sees them and each is stored once."""
    layer = item.layer
    tensors = {
        "weight": item.weight,
        "w_scale": ir.tensor(layer.w_scale),
        "bias": ir.tensor(layer.bias),
    }
    if isinstance(layer.op, ops.BitLinear):
        tensors["gain"] = ones if layer.gain is None else ir.tensor(layer.gain)
    for suffix, tensor in tensors.items():
        known = graph.initializers.get(str(tensor.name))
        if known is not None and known.const_value is tensor:
            yield known  # the same weights as those of an earlier layer
        else:
            yield _initializer(tensor, unique(f"{layer.name}.{suffix}", names), graph)


def _initializer(tensor: ir.TensorProtocol, name: str, graph: ir.Graph) -> ir.Value:
    tensor.name = name
    value = ir.Value(
        name=name,
        const_value=tensor,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
    )
    graph.register_initializer(value)
    return value


def _split(
    value: ir.Value, item: PackedLayer, names: set[str], graph: ir.Graph, *, before: ir.Node
) -> Sequence[ir.Value]:
    name = item.layer.name
    sizes = ir.tensor([part.op.N for part in item.parts], dtype=ir.DataType.INT64)
    inputs = [value, _initializer(sizes, unique(f"{name}.sizes", names), graph)]
    axis = [ir.AttrInt64("axis", -1)]
    node = ir.Node("", "Split", inputs, axis, num_outputs=len(item.parts), name=f"{name}_split")
    graph.insert_before(before, node)
    return node.outputs


def _cast(value: ir.Value, dtype: ir.DataType, name: str, graph: ir.Graph, *, before: ir.Node) -> ir.Value:
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype)], name=name)
    output = node.outputs[0]
    output.name, output.type, output.shape = name, ir.TensorType(dtype), value.shape
    graph.insert_before(before, node)
    return output


def _transpose(
    value: ir.Value, perm: Sequence[int], name: str, graph: ir.Graph, *, before: ir.Node
) -> ir.Value:
    node = ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", list(perm))], name=name)
    output = node.outputs[0]
    output.name, output.type = name, value.type
    graph.insert_before(before, node)
    return output


def _again(node: ir.Node, value: ir.Value, name: str, graph: ir.Graph, *, before: ir.Node) -> ir.Value:
    """What a node of one data input makes of another one."""
    inputs = [value, *node.inputs[1:]]
    copy = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), name=name)
    copy.outputs[0].name, copy.outputs[0].type = name, value.type
    graph.insert_before(before, copy)
    return copy.outputs[0]


def _reshape(value: ir.Value, shape: ir.Value, name: str, graph: ir.Graph, *, before: ir.Node) -> ir.Value:
    node = ir.Node("", "Reshape", [value, shape], name=name)
    output = node.outputs[0]
    output.name, output.type = name, value.type
    graph.insert_before(before, node)
    return output


def remove_dead(nodes: list[ir.Node]) -> None:
    """Remove these nodes and what only they used."""
    while nodes:
        node = nodes.pop()
        if node.graph is None or any(o.uses() or o.is_graph_output() for o in node.outputs):
            continue
        inputs = [v for v in dict.fromkeys(node.inputs) if v is not None]
        node.graph.remove(node, safe=True)
        for value in inputs:
            made_by = value.producer()
            if made_by is not None:
                nodes.append(made_by)
            elif isinstance(value.graph, ir.Graph) and value.is_initializer() and not _is_needed(value):
                del value.graph.initializers[str(value.name)]


def _is_needed(initializer: ir.Value) -> bool:
    return bool(initializer.uses()) or initializer.is_graph_output() or initializer.is_graph_input()
