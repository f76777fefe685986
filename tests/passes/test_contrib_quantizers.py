"""Weights that onnxruntime's own DequantizeLinear makes, as its quantizer writes them for newer types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import pytest

from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

K, N = models.K, models.N
CODES, SCALE = models.quantized(models.latent())
COLUMNS = CODES.T.astype(np.int16)
ROWS = np.linspace(0.5, 1, N, dtype=np.float32)
WEIGHTS: dict[str, tuple[NDArray[Any], str, dict[str, Any]]] = {
    "int8": (COLUMNS.astype(np.int8), "(i, step, zero)", {"zero": np.int8(0)}),
    "uint8": ((COLUMNS + 128).astype(np.uint8), "(i, step, zero)", {"zero": np.uint8(128)}),
    "int16": (COLUMNS, "(i, step)", {}),
    "rows": (COLUMNS.astype(np.int8), "<axis = 1> (i, step)", {"step": ROWS}),
}


def model(name: str, op: str = "DequantizeLinear") -> onnx.ModelProto:
    integers, inputs, known = WEIGHTS[name]
    content = f"""
      <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
      contrib (float[2, 3, {K}] x) => (float[2, 3, {N}] y) {{ {models.quantizer()} q = Div (codes, scale)
        w = com.microsoft.{op} {inputs} y = MatMul (q, w) }}"""
    known = {"i": integers, "step": np.float32(SCALE), **known}
    return models.parse(content, {**models.QUANTIZER_CONSTANTS, **known})


@pytest.mark.parametrize("name", WEIGHTS)
def test_it_is_that_of_the_standard(name: str) -> None:
    original = model(name)
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "int8_token")
    assert models.op_types(models.assert_same(original)) == ["BitLinear"]


def test_other_ops_of_that_domain_are_not_evaluated() -> None:
    (layer,) = models.pack(model("int8", "DequantizeBFP"))[1]
    assert layer.status == KEPT
    assert "its weights are computed by" in layer.reason
