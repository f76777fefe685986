"""A model of layers that read the same activations, or nearly the same: q, k and v of an attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bitcc.facts import PACKED
from models.building import parse
from models.checking import bit_linears, op_types
from models.running import pack, run, tokens
from models.weights import latent, quantized

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

WIDTH = 128  # K of every layer
ROWS = {"q": 64, "k": 32, "v": 32}
MERGED = "q_proj+k_proj+v_proj"

_QUANTIZER = """
  {p}_abs = Abs ({x})
  {p}_max = ReduceMax <keepdims = 1, axes = [-1]> ({p}_abs)
  {p}_bounded = Clip ({p}_max, {eps})
  {p}_inverse = Reciprocal ({p}_bounded)
  {p}_scale = Mul ({p}_inverse, qmax)
  {p}_scaled = Mul ({x}, {p}_scale)
  {p}_round = Round ({p}_scaled)
  {p}_clip = Clip ({p}_round, low, qmax)
  {p}_dequantised = Div ({p}_clip, {p}_scale)
"""
_AXES = "<keepdims = 1, axes = [-1]> ({p}_abs)"
_AXES_ARE_INPUTS = "<keepdims = 1> ({p}_abs, axes)"  # since opset 18


def quantizer(name: str, x: str, eps: str = "eps") -> str:
    """Nodes that make ``NAME_dequantised`` of ``x``; write it once or once for each layer."""
    return _QUANTIZER.format(p=name, x=x, eps=eps)


def product(name: str, quantised: str) -> str:
    """The node ``NAME_proj`` that makes ``NAME`` of ``QUANTISED_dequantised``."""
    return f'[{name}_proj] {name} = MatMul ({quantised}_dequantised, "{name}.weight")\n'


def shared(names: Sequence[str] = tuple(ROWS)) -> str:
    """One quantizer of ``x``, and a layer for each name."""
    return quantizer("x", "x") + "".join(product(name, "x") for name in names)


def copied(names: Sequence[str] = tuple(ROWS), x: Mapping[str, str] | None = None, front: str = "") -> str:
    """A quantizer for each layer, of ``x`` or what ``x`` says; ``front`` is written once, before."""
    given = x or {}
    layers = (quantizer(name, given.get(name, "x")) + product(name, name) for name in names)
    return front + "".join(layers)


def model(
    nodes: str,
    rows: Mapping[str, int] | None = None,
    *,
    opset: int = 18,
    dims: str = "2, 3",
    outputs: Sequence[str] | None = None,
    element: str = "float",
    opsets: str = "",
    values: Mapping[str, Array] | None = None,
) -> onnx.ModelProto:
    """A model of nodes that read ``x`` [dims, WIDTH].

    Args:
        nodes: The text of the nodes.
        rows: The layers and how many outputs each has.
        opset: Of the standard domain.
        dims: The leading dimensions of ``x``.
        outputs: The model's outputs; default: those of the layers.
        element: The type of ``x`` and the outputs.
        opsets: More of them, as text.
        values: Values that replace those of the weights, or are added to them.
    """
    rows = ROWS if rows is None else rows
    if opset >= 18:
        nodes = nodes.replace("<keepdims = 1, axes = [-1]>", "<keepdims = 1>")
        nodes = nodes.replace("_abs)\n", "_abs, axes)\n")
    ends = ", ".join(f"{element}[{dims}, {rows.get(name, WIDTH)}] {name}" for name in outputs or rows)
    content = f"""
        <ir_version: 10, opset_import: ["" : {opset}{opsets}]>
        main_graph ({element}[{dims}, {WIDTH}] x) => ({ends})
        <int64[1] axes = {{-1}}, float eps = {{1e-5}}, float other_eps = {{1e-6}}, float low = {{-128}},
         float qmax = {{127}}>
        {{ {nodes} }}"""
    return parse(content, {**weights(rows), **(values or {})})


def weights(rows: Mapping[str, int]) -> dict[str, Array]:
    """``NAME.weight`` [WIDTH, N] of three levels, each layer with a scale of its own."""
    found: dict[str, Array] = {}
    for seed, (name, n) in enumerate(rows.items()):
        codes, scale = quantized(latent(shape=(n, WIDTH), seed=seed))
        dense = codes.T.astype(np.float32) * np.float32(scale * (seed + 1))
        found[f"{name}.weight"] = np.ascontiguousarray(dense)
    return found


def assert_merged(model: onnx.ModelProto, *, x: Array | None = None) -> onnx.ModelProto:
    """q, k and v are one op; every output has the bits that separate ops give."""
    merged, facts = pack(model)
    onnx.checker.check_model(merged, full_check=True)
    assert [(f.name, f.merged) for f in facts] == [(f"{n}_proj", MERGED) for n in ROWS]
    assert [node.name for node in bit_linears(merged)] == [MERGED]
    assert "Split" in op_types(merged)
    apart, _ = pack(model, merge=False)
    assert len(bit_linears(apart)) == len(ROWS)
    assert list(merged.graph.output) == list(model.graph.output)
    given = tokens(2, 3, k=WIDTH) if x is None else x
    for got, want in zip(run(merged, given), run(apart, given), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got.view(np.uint8), want.view(np.uint8))
    return merged


def assert_apart(model: onnx.ModelProto, *, layers: int = 3) -> onnx.ModelProto:
    """Every layer is packed, and has an op of its own."""
    packed, facts = pack(model)
    assert [(f.status, f.merged) for f in facts] == [(PACKED, "")] * layers
    assert len(bit_linears(packed)) == layers
    assert "Split" not in op_types(packed)
    return packed
