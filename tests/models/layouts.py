"""A layer of 100 inputs and 60 outputs in any layout: behind a quantizer or with float activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx_ir as ir

from bitcc import passes
from bitcc.facts import KEPT
from models.building import parse
from models.quantizer import quantizer
from models.weights import K, N, latent, quantized

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Array = NDArray[Any]

HEADER = """
  <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
  layout (float[{x}] x) => (float[{y}] y) {{
"""
FRONTS = {
    "int8": quantizer() + "q = Div (codes, scale)",
    "codes": quantizer() + "q = Identity (codes)",
    "float": "q = Identity (x)",
}
BOTH = ("Transpose", "Transpose")
EINSUM = 'y = Einsum <equation = "{}"> (q, {})'


class Case(NamedTuple):
    """A layer of 100 inputs and 60 outputs.

    ``axis`` is that of the inputs in x, ``left`` the nodes that stay beside the packed one.
    """

    x: str
    y: str
    axis: int
    body: str
    left: tuple[str, ...] = ()


def arrays(axis: int) -> dict[str, Array]:
    """What the bodies of the cases read; ``axis`` is that of the inputs in x."""
    codes, scale = quantized(latent())
    rows = codes * np.float32(scale)
    rng = np.random.default_rng(2)
    bias = rng.standard_normal(N).astype(np.float32)
    return {
        "rows": rows,
        "columns": np.ascontiguousarray(rows.T),
        "filters": rows[:, :, None, None],
        "filters_1d": rows[:, :, None],
        "heads": rows.T.reshape(K, 4, 15),
        "rows_of_heads": rows.reshape(4, 15, K),
        "heads_first": np.ascontiguousarray(rows.reshape(4, 15, K).swapaxes(1, 2)),
        "rows_of_inputs": rows.T.reshape(K, 4, 15),
        "split": np.array([K, 4, 15]),
        "bias_of_heads": bias.reshape(4, 15),
        "codes": np.ascontiguousarray(codes.T.astype(np.float32)),
        "batched": rows.T[None],
        "batched_rows": rows[None],
        "zero": np.array([0]),
        "zero_one": np.array([0, 1]),
        "one": np.array([1]),
        "two": np.array([2]),
        "copies": np.array([1, 7, K, N]),
        "copies_for_three": np.array([3, 1, K, N]),
        "stack": rows.reshape(2, N // 2, K).swapaxes(1, 2),
        "bias": bias,
        "bias_column": bias[:, None],
        "gain": rng.uniform(0.5, 2, N).astype(np.float32),
        "axis": np.array([axis]),
        "eps": np.float32(1e-5),
        **{str(i): np.float32(i) for i in (-128, 127)},
    }


def build(case: Case, front: str) -> onnx.ModelProto:
    """The model of a case behind one of ``FRONTS``."""
    body = FRONTS[front] + "\n" + case.body
    if front == "codes":  # divided at the end, where the tokens are in the order of the input
        body = body.replace("y =", "z =") + "\ny = Div (z, scale)"
    return parse(HEADER.format(x=case.x, y=case.y) + body + "}", arrays(case.axis))


def facts(model: onnx.ModelProto) -> tuple[str, str, str]:
    """(status, activation, reason) of the only candidate; a model with none packed is what it was."""
    graph = ir.from_proto(model)
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    passes.PIPELINE(graph)
    (layer,) = graph.meta[passes.FACTS]
    if layer.status == KEPT:
        assert ir.to_proto(graph).SerializeToString(deterministic=True) == before
    return layer.status, layer.activation, layer.reason
