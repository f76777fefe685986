"""Shapes behind ops that onnxruntime's optimiser makes, and of which it writes none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models.optimisers import onnxruntime_extended

from bitcc.facts import PACKED
from bitcc.passes.inferred_shapes import inferred_shapes

if TYPE_CHECKING:
    from pathlib import Path

K = models.K
CODES, SCALE = models.quantized(models.latent(shape=(K, K)))
KNOWN = {
    "w": CODES.astype(np.float32) * np.float32(SCALE),
    "bias": np.linspace(-1, 1, K, dtype=np.float32),
    **models.QUANTIZER_CONSTANTS,
    "half": np.float32(0.5),
    "one": np.float32(1),
    "root": np.float32(np.sqrt(2)),
    "alpha": np.float32(0.3),
}
BETWEEN = {
    "QuickGelu": "n = Sigmoid (h) g = Mul (h, n)",
    "Gelu": "d = Div (h, root) e = Erf (d) f = Add (e, one) m = Mul (h, f) g = Mul (m, half)",
    "FusedMatMul": """t = Transpose <perm = [0, 2, 1]> (h) s = MatMul (h, t) z = Mul (s, alpha)
      g = MatMul (z, h)""",
}
FIRST = "h = MatMul (x, w)"
SECOND = models.quantizer("g") + "q = Div (codes, scale) p = MatMul (q, w) y = Add (p, bias)"


def optimised(folder: Path, between: str) -> onnx.ModelProto:
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      shapes (float[2, 3, {K}] x) => (float[2, 3, {K}] y) {{ {FIRST} {between} {SECOND} }}"""
    onnx.save(models.parse(content, KNOWN), folder / "model.onnx")
    onnxruntime_extended(folder / "model.onnx", folder / "optimised.onnx")
    return onnx.load(folder / "optimised.onnx")


@pytest.mark.parametrize("op", BETWEEN)
def test_a_layer_behind_such_an_op_is_computed_with_integer_kernels(tmp_path: Path, op: str) -> None:
    """Its Gemm is between two Reshapes, of which nothing is known without the shape of its input."""
    model = optimised(tmp_path, BETWEEN[op])
    assert {op, "Gemm", "Reshape"} <= set(models.op_types(model))
    assert not model.graph.value_info
    _, second = models.pack(model)[1]
    assert (second.status, second.activation, second.reason) == (PACKED, "int8_token", "")
    models.assert_same(model, layers=2)


@pytest.mark.parametrize("op", BETWEEN)
def test_the_model_is_what_it_was(tmp_path: Path, op: str) -> None:
    model = ir.from_proto(optimised(tmp_path, BETWEEN[op]))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    with inferred_shapes(model):
        assert all(v.shape is not None for node in model.graph for v in node.outputs)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("node", ["FusedMatMul <transBatchA = 1> (a, a)", "FusedMatMul (a)"])
def test_of_other_products_nothing_is_said(node: str) -> None:
    """Batches that are transposed, and too few operands."""
    content = f"""
      <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
      product (float[2, 3, 3] a) => (float[n] z) {{ y = com.microsoft.{node} z = Flatten (y) }}"""
    model = ir.from_proto(onnx.parser.parse_model(content))
    with inferred_shapes(model):
        assert model.graph.node(0).outputs[0].shape is None


@pytest.mark.parametrize(
    ("flags", "a", "b", "y"),
    [
        ("", "2, 3, 4", "4, 5", "2, 3, 5"),
        ("", "3, 4", "2, 4, 5", "2, 3, 5"),
        ("transA = 1", "2, 4, 3", "2, 4, 5", "2, 3, 5"),
        ("transB = 1", "2, 3, 4", "5, 4", "2, 3, 5"),
        ("transA = 1, transB = 1", "4, 3", "5, 4", "3, 5"),
    ],
)
def test_the_shape_of_a_fused_product(flags: str, a: str, b: str, y: str) -> None:
    attributes = f"<{flags}>" if flags else ""
    model = ir.from_proto(
        onnx.parser.parse_model(f"""
          <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
          product (float[{a}] a, float[{b}] b) => (float[n] z)
          {{ y = com.microsoft.FusedMatMul {attributes} (a, b) z = Flatten (y) }}""")
    )
    with inferred_shapes(model):
        shape = model.graph.node(0).outputs[0].shape
        assert shape is not None
        assert ", ".join(map(str, shape)) == y
