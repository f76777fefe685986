"""More ways to run the layer in onnxruntime than ``bitcc bench`` has."""

from __future__ import annotations

import importlib
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bitcc.bench.contenders import PEERS, Contender

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray
    from onnx import NodeProto

    from bitcc.bench.contenders import Layer

    Tensors: TypeAlias = dict[str, NDArray[Any]]

_BLOCK = 32  # onnxruntime's own default, and the one with the most 4-bit kernels
_ZERO = 8  # where there are no zero points


def _nbits4_tensors(layer: Layer) -> Tensors:
    n, k = layer.weights.shape
    blocks = -(-k // _BLOCK)
    codes = np.full((n, blocks * _BLOCK), _ZERO, np.uint8)
    codes[:, :k] += layer.weights.view(np.uint8)  # modulo 256
    low, high = codes.reshape(n, blocks, -1, 2).transpose(3, 0, 1, 2)
    return {"B": low | high << 4, "scales": np.full((n, blocks), layer.scale, np.float32)}


def _nbits4_nodes(layer: Layer) -> list[NodeProto]:
    n, k = layer.weights.shape
    sizes = {"N": n, "K": k, "bits": 4, "block_size": _BLOCK, "accuracy_level": 4}
    return [helper.make_node("MatMulNBits", ["x", "B", "scales"], ["y"], domain="com.microsoft", **sizes)]


NBITS4 = Contender(
    "nbits4",
    f"MatMulNBits, 4 bits, block {_BLOCK}, accuracy level 4",
    2e-2,
    _nbits4_tensors,
    _nbits4_nodes,
)


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
