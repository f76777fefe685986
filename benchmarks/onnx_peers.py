"""More ways to run the layer in onnxruntime than ``bitcc bench`` has."""

from __future__ import annotations

import importlib
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeAlias

from onnx import TensorProto, helper, numpy_helper

from bitcc.bench.contenders import NBITS4, PEERS, Contender

__all__ = ["NBITS4", "onnxsim"]

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray
    from onnx import NodeProto

    from bitcc.bench.contenders import Layer

    Tensors: TypeAlias = dict[str, NDArray[Any]]


def onnxsim() -> Contender:
    """What ``onnxsim.quantize_ternary`` makes of the layer with float weights.

    Raises:
        ImportError: it is not installed.
    """
    package = importlib.import_module("onnxsim")
    dense = PEERS[0]

    @lru_cache(maxsize=1)  # a copy of the layer asks for tensors, then for nodes
    def graph(layer: _Key) -> onnx.GraphProto:
        quantized: onnx.ModelProto = package.quantize_ternary(_model(dense, layer.layer))
        return quantized.graph

    def tensors(layer: Layer) -> Tensors:
        made = graph(_Key(layer))
        used = {name for node in made.node for name in node.input}  # the float weights are left behind
        return {t.name: numpy_helper.to_array(t) for t in made.initializer if t.name in used}

    def nodes(layer: Layer) -> list[NodeProto]:
        return list(graph(_Key(layer)).node)

    about = f"onnxsim {metadata.version('onnxsim')}, quantize_ternary"
    return Contender("onnxsim", about, 5e-2, tensors, nodes)


class _Key:
    """A layer as the key of a cache: itself, not what is in it."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.layer.weights is other.layer.weights

    def __hash__(self) -> int:
        return id(self.layer.weights)


def _model(contender: Contender, layer: Layer) -> onnx.ModelProto:
    n, k = layer.weights.shape
    tensors = [numpy_helper.from_array(array, name) for name, array in contender.tensors(layer).items()]
    kinds = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["M", columns])
        for name, columns in (("x", k), ("y", n))
    ]
    made = helper.make_graph(contender.nodes(layer), "layer", kinds[:1], kinds[1:], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
