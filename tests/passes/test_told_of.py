"""Ternary matrices in products that are not packed: none is overlooked, and the reason is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import pytest

from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.facts import LayerFacts

    Values = dict[str, NDArray[Any]]

ROWS, _ = models.quantized(models.latent())
COLUMNS = np.ascontiguousarray(ROWS.T).astype(np.int8)
SCALES = np.array([0.01, 0.05, 0.02, 0.03], np.float32)[:, None, None]
KNOWN: dict[str, NDArray[Any] | np.float32 | np.uint8 | np.int8] = {
    "codes": COLUMNS,
    "rows": ROWS.astype(np.int8),
    "filters": ROWS[:, :, None].astype(np.int8),
    "shifted": (COLUMNS.astype(np.int16) + 128).astype(np.uint8),
    "zeros_of_outputs": np.full(models.N, 128, np.uint8),
    "w": COLUMNS.astype(np.float32),
    "one": np.float32(1),
    "half": np.float32(0.5),
    "zero": np.int8(0),
    "middle": np.uint8(128),
    "sides": np.array([models.K, models.N]),
    "three": np.array([3]),
    "ones": np.array([1, 1]),
    "axis": np.array([0]),
}
QUANTIZED = "q, s, z = DynamicQuantizeLinear (x)"
OTHER_OPS = {
    "MatMulInteger": f"{QUANTIZED} i = MatMulInteger (q, codes, z) y = Cast <to = 1> (i)",
    "MatMulIntegerToFloat": QUANTIZED
    + " y = com.microsoft.MatMulIntegerToFloat (q, codes, s, half, z, zero)",
    "DynamicQuantizeMatMul": "y = com.microsoft.DynamicQuantizeMatMul (x, shifted, half, zeros_of_outputs)",
    "QLinearMatMul": f"""{QUANTIZED} i = QLinearMatMul (q, s, z, shifted, half, middle, one, middle)
      y = DequantizeLinear (i, one, middle)""",
    "QGemm": f"{QUANTIZED} y = com.microsoft.QGemm <transB = 1> (q, s, z, rows, half, zero)",
    "ConvInteger": f"{QUANTIZED} t = Transpose (q) u = Unsqueeze (t, axis) i = ConvInteger (u, filters, z) "
    "y = Cast <to = 1> (i)",
}


def told(body: str, rows: str = "7", k: int = models.K, values: Values | None = None) -> LayerFacts:
    content = f"""
      <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
      told (float[{rows}, {k}] x) => (float y) {{ {body} }}"""
    (layer,) = models.pack(models.parse(content, {**KNOWN, **(values or {})}))[1]
    return layer


@pytest.mark.parametrize("op", OTHER_OPS)
def test_ternary_weights_of_quantised_products_are_told_of(op: str) -> None:
    layer = told(OTHER_OPS[op])
    assert (layer.status, layer.op, layer.scheme, layer.N * layer.K) == (KEPT, op, "ternary", COLUMNS.size)
    assert "zero point" in layer.reason
    assert "as BitNet b1.58 does" in layer.fix


@pytest.mark.parametrize("op", OTHER_OPS)
def test_dense_weights_of_quantised_products_are_dense(op: str) -> None:
    dense = np.random.default_rng(0).integers(-100, 100, COLUMNS.shape).astype(np.int8)
    shifted = (dense.astype(np.int16) + 128).astype(np.uint8)
    values = {"codes": dense, "rows": dense.T, "filters": dense.T[:, :, None], "shifted": shifted}
    layer = told(OTHER_OPS[op], values=values)
    assert (layer.status, layer.scheme) == (KEPT, "dense")
    assert "dense" in layer.reason


STACKS = {
    "experts": "u = Unsqueeze (x, axis) y = MatMul (u, experts)",
    "experts of rows": """u = Unsqueeze (x, axis) t = Transpose <perm = [0, 2, 1]> (experts_of_rows)
      y = MatMul (u, t)""",
    "fused": "u = Unsqueeze (x, axis) y = com.microsoft.FusedMatMul <transB = 1> (u, experts_of_rows)",
}


def stacked(experts: NDArray[Any]) -> Values:
    """Matrices [4, N, K] as the bodies read them."""
    return {"experts": np.ascontiguousarray(experts.swapaxes(1, 2)), "experts_of_rows": experts}


@pytest.mark.parametrize("k", [models.K, 96, 91, 12])
@pytest.mark.parametrize("name", STACKS)
def test_a_stack_of_ternary_matrices_with_a_scale_each_is_told_of(name: str, k: int) -> None:
    layer = told(STACKS[name], k=k, values=stacked(ROWS[:, :k] * SCALES))
    assert (layer.status, layer.scheme, layer.reason) == (
        KEPT,
        "ternary",
        "its weight is a stack of 4 matrices",
    )
    assert 4 * models.N * k == layer.N * layer.K


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_with_one_dense_matrix_is_dense(name: str) -> None:
    experts = ROWS * SCALES
    experts[3] = np.random.default_rng(0).standard_normal(ROWS.shape)
    layer = told(STACKS[name], values=stacked(experts))
    assert (layer.status, layer.scheme) == (KEPT, "dense")
    assert "dense" in layer.reason


BATCH = "n = Shape <start = 0, end = 1> (x) "
REPEATED = f"{BATCH} d = Concat <axis = 0> (n, sides) e = Expand (w, d) y = MatMul (x, e)"


def test_a_weight_that_is_expanded_for_the_batch_of_the_input_is_packed() -> None:
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      told (float[batch, 7, {models.K}] x) => (float[batch, 7, {models.N}] y) {{ {REPEATED} }}"""
    original = models.parse(content, KNOWN)
    packed = models.assert_same(original)
    assert models.op_types(packed)[-1] == "TernaryLinear"
    assert told(REPEATED, "batch, 7").status == PACKED


MULTIPLIED = "e = Expand (w, d) y = MatMul (x, e)"
OTHER_BATCHES = {
    "a batch of its own": (
        "1, 7",
        "d = Concat <axis = 0> (three, sides) e = Expand (w, d) y = MatMul (x, e)",
    ),
    "a tiled weight": (
        "batch, 7",
        f"{BATCH} u = Unsqueeze (w, axis) d = Concat <axis = 0> (n, ones) e = Tile (u, d) y = MatMul (x, e)",
    ),
    "a batch that may be another": (
        "batch, 7",
        f"""v = NonZero (x) n = Shape <start = 1, end = 2> (v) d = Concat <axis = 0> (n, sides)
        {MULTIPLIED}""",
    ),
}


@pytest.mark.parametrize("name", OTHER_BATCHES)
def test_a_weight_that_is_repeated_for_another_batch_is_told_of(name: str) -> None:
    rows, body = OTHER_BATCHES[name]
    layer = told(body, rows)
    assert (layer.status, layer.scheme) == (KEPT, "ternary")
    assert "a batch that may be another" in layer.reason


def test_a_computed_tensor_that_is_repeated_is_no_weight() -> None:
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      told (float[3, 7, {models.K}] x) => (float y) {{
        t = Transpose <perm = [0, 2, 1]> (x) d = Shape (t) e = Expand (t, d) y = MatMul (x, e) }}"""
    assert models.pack(models.parse(content, KNOWN))[1] == ()
