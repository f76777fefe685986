"""Compare a model with what the passes make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper, numpy_helper

from bitcc import formats
from bitcc.facts import PACKED
from models.running import largest_difference, pack, run, tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def assert_same(model: onnx.ModelProto, *, layers: int = 1, **options: Any) -> onnx.ModelProto:
    """Pack the model; the number of packed layers and all of its outputs must be as expected."""
    packed, facts = pack(model, **options)
    assert [f.status for f in facts].count(PACKED) == layers, facts
    onnx.checker.check_model(packed)
    assert len(bit_linears(packed)) == layers
    assert [v.name for v in packed.graph.output] == [v.name for v in model.graph.output]
    x = _input(model)
    for got, want in zip(run(packed, x), run(model, x), strict=True):
        assert largest_difference(got, want) < 1e-5
    return packed


def _input(model: onnx.ModelProto) -> Array:
    """Tokens of the declared shape; dimensions that are free become 3."""
    declared = model.graph.input[0].type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else 3 for d in declared.shape.dim]
    return tokens(*dims[:-1], k=dims[-1]).astype(helper.tensor_dtype_to_np_dtype(declared.elem_type))


def initializers(model: onnx.ModelProto) -> dict[str, Array]:
    """By name."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def bit_linears(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The packed nodes, in graph order."""
    return [node for node in model.graph.node if node.domain == "bitcc"]


def op_types(model: onnx.ModelProto) -> list[str]:
    """Of the nodes, in graph order."""
    return [node.op_type for node in model.graph.node]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """By name, strings as such."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in found.items()}


def read(model: onnx.ModelProto) -> tuple[dict[str, Any], list[Array]]:
    """(attributes, [codes, scale, bias]) of the only packed node, a TernaryLinear."""
    (node,) = bit_linears(model)
    weight, scale, bias = (initializers(model)[name] for name in node.input[1:])
    found = attributes(node)
    codes = formats.get("t2", 1).unpack(weight, found["N"], found["K"])
    return found, [codes, scale, bias]
