"""The ways to run one ternary linear layer in onnxruntime, each as a template of nodes and weights.

To add a peer, write its two functions and name it in ``PEERS``; the benchmark and its tests run over all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from onnx import NodeProto, TensorProto, helper

from bitcc import formats, ops
from bitcc.bench import models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

_BLOCK = 128  # of MatMulNBits: the largest one with a 2-bit integer kernel, and the fastest
_HEAD = 16  # rows; a multiple of what any format packs together
_ZERO_POINTS = 0b01010101  # four 2-bit zero points 1
_BLOCK4 = 32  # of 4 bits: onnxruntime's own default, and the one with the most kernels
_ZERO4 = 8  # of 4 bits, where there are no zero points


@dataclass(frozen=True)
class Layer:
    """A random ternary layer and an input for it.

    Attributes:
        weights: int8 [N, K] in {-1, 0, 1}.
        scale: float32 [1].
        x: float32 [M, K].
    """

    weights: NDArray[np.int8]
    scale: NDArray[np.float32]
    x: NDArray[np.float32]

    @property
    def op(self) -> ops.BitLinear:
        """The attributes of the layer as our op."""
        n, k = self.weights.shape
        return ops.BitLinear(K=k, N=n)

    def head(self, copy: int) -> Layer:
        """The first rows of a copy of the layer, in which each copy differs from all others.

        onnxruntime keeps one prepacked form of weights that are equal: equal copies would stay in cache.
        """
        rows, k = self.weights[:_HEAD].shape
        if copy == 0:
            return replace(self, weights=self.weights[:rows])
        rng = np.random.default_rng([rows, k, copy])
        return replace(self, weights=rng.integers(-1, 2, (rows, k), np.int8))

    def references(self, copies: int) -> list[NDArray[np.float32]]:
        """What our op has to compute for each copy, bit for bit."""
        first = self.reference()
        heads = [self.head(copy).reference() for copy in range(copies)]
        return [np.concatenate([head, first[:, head.shape[1] :]], axis=1) for head in heads]

    def reference(self) -> NDArray[np.float32]:
        """What our op has to compute for the layer itself."""
        tensors = BITCC.tensors(self)
        y: NDArray[np.float32] = ops.reference(
            self.x, tensors["W"], tensors["w_scale"], tensors["bias"], self.op
        )
        return y


def random_layer(n: int, k: int, tokens: int, x_type: type[np.floating[Any]] = np.float32) -> Layer:
    """A layer that is the same each time, with an x that `x_type` can hold."""
    rng = np.random.default_rng([n, k])
    weights = rng.integers(-1, 2, (n, k), np.int8)
    x = rng.standard_normal((tokens, k), np.float32).astype(x_type).astype(np.float32)
    return Layer(weights, np.array([0.02], np.float32), x)


@dataclass(frozen=True)
class Contender:
    """One way to run a layer.

    Attributes:
        name: Short, for tables and JSON.
        about: What runs.
        tolerance: Largest difference from our op relative to max|y|: what the other rounding of
            activations may make. Ours has 0.
        tensors: The constants of the layer, by name.
        nodes: The nodes that make ``y`` of ``x`` and the constants.
        needs_library: Whether the session needs our op library.
        element: The type of x and y.
    """

    name: str
    about: str
    tolerance: float
    tensors: Callable[[Layer], dict[str, Array]]
    nodes: Callable[[Layer], list[NodeProto]]
    needs_library: bool = False
    element: type[np.floating[Any]] = np.float32

    def prepare(self, folder: Path, layer: Layer, stream_bytes: int) -> models.Stack:
        """A model in a new folder that holds the layer so often that its copies have ``stream_bytes``."""
        return models.write(folder, self, layer, stream_bytes)


def _bitcc_tensors(layer: Layer, weight_format: str) -> dict[str, Array]:
    fmt = formats.FORMATS[weight_format]
    bias = np.zeros(1, np.float32)
    return {"W": fmt.pack(layer.weights), "w_scale": layer.scale, "bias": bias, "gain": ops.ONE}


def _bitcc_nodes(layer: Layer, weight_format: str) -> list[NodeProto]:
    fmt = formats.FORMATS[weight_format]
    op = replace(layer.op, weight_format=fmt.name, layout_version=fmt.layout_version)
    inputs = ["x", "W", "w_scale", "bias", "gain"]
    node = helper.make_node(ops.BIT_LINEAR, inputs, ["y"], domain=ops.DOMAIN)
    node.attribute.extend(helper.make_attribute(*pair) for pair in op.attributes().items())
    return [node]


def _float_tensors(layer: Layer) -> dict[str, Array]:
    return {"W": np.ascontiguousarray(layer.weights.T) * layer.scale}


def _float_nodes(_: Layer) -> list[NodeProto]:
    return [helper.make_node("MatMul", ["x", "W"], ["y"])]


def _nbits_tensors(layer: Layer) -> dict[str, Array]:
    n, k = layer.weights.shape
    blocks = -(-k // _BLOCK)
    codes = np.ones((n, blocks * _BLOCK), np.uint8)
    codes[:, :k] = (layer.weights + 1).view(np.uint8)
    shifts = np.array([0, 2, 4, 6], np.uint8)
    packed = np.bitwise_or.reduce(codes.reshape(n, blocks, -1, 4) << shifts, axis=-1)
    return {
        "B": packed,
        "scales": np.full((n, blocks), layer.scale, np.float32),
        "zero_points": np.full((n, -(-blocks // 4)), _ZERO_POINTS, np.uint8),
    }


def _nbits_nodes(layer: Layer) -> list[NodeProto]:
    n, k = layer.weights.shape
    inputs = ["x", "B", "scales", "zero_points"]
    sizes = {"N": n, "K": k, "bits": 2, "block_size": _BLOCK, "accuracy_level": 4}
    return [helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft", **sizes)]


def _nbits4_tensors(layer: Layer) -> dict[str, Array]:
    n, k = layer.weights.shape
    blocks = -(-k // _BLOCK4)
    codes = np.full((n, blocks * _BLOCK4), _ZERO4, np.uint8)
    codes[:, :k] += layer.weights.view(np.uint8)  # modulo 256
    low, high = codes.reshape(n, blocks, -1, 2).transpose(3, 0, 1, 2)
    return {"B": low | high << 4, "scales": np.full((n, blocks), layer.scale, np.float32)}


def _nbits4_nodes(layer: Layer) -> list[NodeProto]:
    n, k = layer.weights.shape
    sizes = {"N": n, "K": k, "bits": 4, "block_size": _BLOCK4, "accuracy_level": 4}
    return [helper.make_node("MatMulNBits", ["x", "B", "scales"], ["y"], domain="com.microsoft", **sizes)]


def _dynamic_tensors(layer: Layer) -> dict[str, Array]:
    return {"W": np.ascontiguousarray(layer.weights.T), "w_scale": layer.scale.reshape(())}


def _dynamic_nodes(_: Layer) -> list[NodeProto]:
    return [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "x_scale", "x_zero_point"]),
        helper.make_node("MatMulInteger", ["q", "W", "x_zero_point"], ["acc"]),
        helper.make_node("Cast", ["acc"], ["sum"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x_scale", "w_scale"], ["scale"]),
        helper.make_node("Mul", ["sum", "scale"], ["y"]),
    ]


def _no_tensors(_: Layer) -> dict[str, Array]:
    return {}


def _next_to_nothing(_: Layer) -> list[NodeProto]:
    return [helper.make_node("Neg", ["x"], ["y"])]


BITCC = Contender(
    "bitcc",
    "bitcc::BitLinear, int8 activations per token",
    0.0,
    partial(_bitcc_tensors, weight_format="t2"),
    partial(_bitcc_nodes, weight_format="t2"),
    needs_library=True,
)
T5 = Contender(
    "t5",
    "bitcc::BitLinear, weights in format t5",
    0.0,
    partial(_bitcc_tensors, weight_format="t5"),
    partial(_bitcc_nodes, weight_format="t5"),
    needs_library=True,
)
PEERS = (
    Contender("float32", "MatMul, float32 weights", 2e-2, _float_tensors, _float_nodes),
    Contender(
        "nbits", "MatMulNBits, 2 bits, block 128, accuracy level 4", 2e-2, _nbits_tensors, _nbits_nodes
    ),
    Contender(
        "int8", "DynamicQuantizeLinear + MatMulInteger, uint8 x int8", 5e-2, _dynamic_tensors, _dynamic_nodes
    ),
)
NBITS4 = Contender(
    "nbits4",
    f"MatMulNBits, 4 bits, block {_BLOCK4}, accuracy level 4",
    2e-2,
    _nbits4_tensors,
    _nbits4_nodes,
)
OVERHEAD = Contender("overhead", "a session that negates one number", 0.0, _no_tensors, _next_to_nothing)
