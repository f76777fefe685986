"""Models of many BitLinear layers in a row, their weights written in the ways that exporters write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

HALVES = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
FORMS = (
    *("latent fp32", "latent fp16", "latent bf16"),
    *("folded fp32", "folded fp16", "noisy fp32", "noisy fp16", "rows fp16", "groups fp16", "int8"),
)
"""Latent weights and their quantizer in the graph; {-s, 0, s}, exact or with noise, or with an s for each row
or for groups of its columns; codes and scale."""

_SCALARS = {"eps": 1e-5, "one": 1.0, "minus_one": -1.0, "low": -128.0, "high": 127.0}
_ACTIVATION = """Abs x a; ReduceMax a,axes m; Clip m,eps c; Reciprocal c r; Mul r,high s; Mul x,s v;
Round v rv; Clip rv,low,high cv; Div cv,s d"""
_QUANTIZER = """Abs w wa; ReduceMean wa wm; Clip wm,eps wc; Reciprocal wc wr; Mul w,wr ws; Round ws wq;
Clip wq,minus_one,one wk; Div wk,wr wd; Sub wd,w wsub; Add w,wsub wste; Transpose wste wt"""

_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Cast": {"to": TensorProto.FLOAT},
    "ReduceMean": {"keepdims": 0},
    "Transpose": {"perm": [1, 0]},
}


def write(folder: Path, form: str, layers: int, side: int) -> int:
    """A model ``model.onnx`` of ``layers`` layers of ``side`` x ``side`` weights; returns their bytes."""
    latent = np.random.default_rng(0).standard_normal((side, side), np.float32) * np.float32(0.02)
    weight, steps = _weight(form, latent)
    nodes: list[onnx.NodeProto] = []
    tensors = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in _SCALARS.items()]
    tensors.append(numpy_helper.from_array(np.array([-1]), "axes"))
    tensors.append(numpy_helper.from_array(np.array(0.0125, np.float32), "scale"))
    with (folder / "model.data").open("wb") as stream:
        for layer in range(layers):
            stored = np.roll(weight, layer, axis=1)  # no two layers share their weights
            tensors.append(_external(f"w{layer}", stored, stream.tell()))
            stream.write(stored.tobytes())
            names = {"w": f"w{layer}", "x": f"x{layer}", "y": f"x{layer + 1}"}
            nodes += _nodes(f"{_ACTIVATION}; {steps}; MatMul d,wt y", f"layer{layer}.", names)
    kinds = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["T", side]) for n in ("x0", f"x{layers}")]
    graph = helper.make_graph(nodes, "layers", kinds[:1], kinds[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return weight.nbytes * layers


def _weight(form: str, latent: NDArray[np.float32]) -> tuple[Array, str]:
    """What is stored for each layer, and the nodes from it to the product."""
    kind, dtype = (*form.split(), "")[:2]
    codes = np.clip(np.rint(latent / np.abs(latent).mean()), -1, 1)
    level = np.float32(0.0125)
    if kind == "latent":
        widen = "Identity stored w" if dtype == "fp32" else "Cast stored w"
        return latent.astype(HALVES.get(dtype, latent.dtype)), f"{widen}; {_QUANTIZER}"
    makers: dict[str, tuple[Callable[[], Array], str]] = {
        "folded fp32": (lambda: codes.T * level, "Identity stored wt"),
        "folded fp16": (lambda: (codes.T * level).astype(np.float16), "Cast stored wt"),
        "noisy fp32": (lambda: (latent + (codes * level - latent)).T, "Identity stored wt"),
        "noisy fp16": (lambda: _merged(latent.astype(np.float16), codes).T, "Cast stored wt"),
        "rows fp16": (lambda: _scaled(codes, codes.shape[1]).T.astype(np.float16), "Cast stored wt"),
        "groups fp16": (
            lambda: _scaled(codes, min(128, codes.shape[1] // 2)).T.astype(np.float16),
            "Cast stored wt",
        ),
        "int8": (lambda: codes.T.astype(np.int8), "Cast stored wi; Mul wi,scale wt"),
    }
    make, steps = makers[form]
    return np.ascontiguousarray(make()), steps


def _scaled(codes: Array, size: int) -> Array:
    """Codes times a scale for each group of that many columns of a row."""
    n, k = codes.shape
    scales = np.random.default_rng(1).uniform(0.01, 0.02, (n, k // size)).astype(np.float32)
    return np.asarray(codes * np.repeat(scales, size, axis=1))


def _merged(latent: Array, codes: Array) -> Array:
    """What a straight-through estimator makes of weights in their own type."""
    level = np.abs(latent).mean(dtype=np.float32).astype(latent.dtype)
    return np.asarray(latent + (codes.astype(latent.dtype) * level - latent))


def _nodes(steps: str, prefix: str, names: dict[str, str]) -> list[onnx.NodeProto]:
    """Nodes of ``Op inputs output`` each; names that the model does not share get the prefix."""
    shared = {*_SCALARS, "axes", "scale"}
    names = {**names, "stored": names["w"], "w": prefix + "w"}
    made = []
    for step in steps.split(";"):
        op, inputs, output = step.split()
        known = [n if n in shared else names.get(n, prefix + n) for n in (*inputs.split(","), output)]
        made.append(helper.make_node(op, known[:-1], known[-1:], name=known[-1], **_ATTRIBUTES.get(op, {})))
    return made


def _external(name: str, array: Array, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
    tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    place = {"location": "model.data", "offset": str(offset), "length": str(array.nbytes)}
    tensor.external_data.extend(onnx.StringStringEntryProto(key=k, value=v) for k, v in place.items())
    return tensor
