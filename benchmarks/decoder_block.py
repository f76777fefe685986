"""A decoder block of the shape of BitNet b1.58 2B4T as ONNX, its seven linear layers in any form.

Attention, with its cache of keys and values, is onnxruntime's GroupQueryAttention in every form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bitcc.bench.contenders import Contender, Layer, random_layer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Feeds = dict[str, NDArray[Any]]

_ROPE_BASE = 500_000.0


@dataclass(frozen=True)
class Shape:
    """Sizes of a block; the defaults are those of BitNet b1.58 2B4T."""

    hidden: int = 2560
    heads: int = 20
    kv_heads: int = 5
    intermediate: int = 6912

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads

    def layers(self) -> dict[str, tuple[int, int]]:
        """(N, K) of the linear layers."""
        h, i, kv = self.hidden, self.intermediate, self.kv_heads * self.head
        names = "q", "k", "v", "o", "gate", "up", "down"
        return dict(zip(names, ((h, h), (kv, h), (kv, h), (h, h), (i, h), (i, h), (h, i)), strict=True))


def write(file: Path, form: Contender, shape: Shape, tokens: int, past: int) -> None:
    """Write the block for so many tokens after ``past`` others; weights are the same in every form."""
    tensors: Feeds = {"two": np.array(2, np.float32), "eps": np.array(1e-5, np.float32)}
    nodes: list[NodeProto] = []

    def step(op: str, inputs: str, outputs: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(op, inputs.split(), outputs.split(), **attributes))

    def norm(x: str, y: str, width: int) -> None:
        tensors[f"{y}.gain"] = np.ones(width, np.float32)
        step("Pow", f"{x} two", f"{y}.square")
        step("ReduceMean", f"{y}.square", f"{y}.mean", axes=[-1], keepdims=1)
        step("Add", f"{y}.mean eps", f"{y}.mean_eps")
        step("Sqrt", f"{y}.mean_eps", f"{y}.rms")
        step("Div", f"{x} {y}.rms", f"{y}.normal")
        step("Mul", f"{y}.normal {y}.gain", y)

    def linear(name: str, x: str) -> None:
        layer = _layer(*shape.layers()[name])
        tensors.update({f"{name}.{key}": array for key, array in form.tensors(layer).items()})
        for node in form.nodes(layer):
            for names in (node.input, node.output):
                names[:] = [{"x": x, "y": name}.get(old, f"{name}.{old}") if old else "" for old in names]
            nodes.append(node)

    tensors["cos"], tensors["sin"] = _rope(past + tokens, shape.head)
    attention = {"num_heads": shape.heads, "kv_num_heads": shape.kv_heads, "do_rotary": 1}
    norm("x", "attention_in", shape.hidden)
    for name in "qkv":
        linear(name, "attention_in")
    inputs = "q k v past_key past_value last_key all_keys cos sin"
    outputs = "attention present_key present_value"
    step("GroupQueryAttention", inputs, outputs, domain="com.microsoft", **attention)
    norm("attention", "attention_out", shape.hidden)
    linear("o", "attention_out")
    step("Add", "x o", "middle")
    norm("middle", "mlp_in", shape.hidden)
    linear("gate", "mlp_in")
    linear("up", "mlp_in")
    step("Relu", "gate", "positive")
    step("Mul", "positive positive", "squared")
    step("Mul", "squared up", "gated")
    norm("gated", "mlp_out", shape.intermediate)
    linear("down", "mlp_out")
    step("Add", "middle down", "y")

    value = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    made = feeds(shape, tokens, past)
    ins = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in made.items()
    ]
    outs = [value("y", shape=made["x"].shape)]
    present = [1, shape.kv_heads, past + tokens, shape.head]
    outs += [value(name, shape=present) for name in ("present_key", "present_value")]
    constants = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "decoder_block", ins, outs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, file, save_as_external_data=True, location=f"{file.name}.data")


def feeds(shape: Shape, tokens: int, past: int) -> Feeds:
    """Inputs that are the same each time."""
    rng = np.random.default_rng(tokens)
    cache = (1, shape.kv_heads, past, shape.head)
    return {
        "x": rng.standard_normal((1, tokens, shape.hidden), np.float32),
        "past_key": rng.standard_normal(cache, np.float32),
        "past_value": rng.standard_normal(cache, np.float32),
        "last_key": np.array([past + tokens - 1], np.int32),
        "all_keys": np.array([past + tokens], np.int32),
    }


def fake_quantized(dense: Contender) -> Contender:
    """The form that exporters write: activations quantized and scaled back, then a float product."""
    scalars = {"low": -128.0, "high": 127.0, "least": 1e-5}
    chain = """Abs x a; ReduceMax a m; Max m,least c; Div high,c s;
        Mul x,s v; Round v r; Clip r,low,high q; Div q,s d"""

    def nodes(layer: Layer) -> list[NodeProto]:
        made = []
        for step in chain.split(";"):
            op, inputs, output = step.split()
            attributes: dict[str, Any] = {"axes": [-1]} if op == "ReduceMax" else {}
            made.append(helper.make_node(op, inputs.split(","), [output], **attributes))
        (product,) = dense.nodes(layer)
        product.input[0] = "d"
        return [*made, product]

    def tensors(layer: Layer) -> Feeds:
        return dense.tensors(layer) | {name: np.array(number, np.float32) for name, number in scalars.items()}

    return Contender(
        "original", "MatMul behind fake-quantized activations, as exported", 1e-4, tensors, nodes
    )


def _layer(n: int, k: int) -> Layer:
    layer = random_layer(n, k, 1)
    return Layer(layer.weights, np.array([1 / np.sqrt(k)], np.float32), layer.x)


def _rope(length: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    turns = np.outer(np.arange(length), _ROPE_BASE ** -(np.arange(0, width, 2) / width))
    return np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)
