"""Activations behind the quantizers of QONNX: a layer is packed, and they become standard ops."""

from __future__ import annotations

import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bitcc.facts import KEPT, PACKED
from bitcc.passes import qonnx

DOMAIN = "qonnx.custom_op.general"
CODES, SCALE = models.quantized(models.latent())
COLUMNS = np.ascontiguousarray((CODES * np.float32(SCALE)).T)
QUANTIZERS = {  # attributes, zero point, bits
    "int8": ("<narrow = 0, signed = 1>", 0, 8),
    "narrow": ("<narrow = 1, signed = 1>", 0, 8),
    "unsigned": ("<narrow = 0, signed = 0>", 0, 4),
    "unsigned, narrow, with a zero point": ("<narrow = 1, signed = 0>", 100, 8),
    "one bit": ("<narrow = 0, signed = 1>", 0, 1),
    "floor": ('<narrow = 0, signed = 1, rounding_mode = "FLOOR">', 3, 6),
    "ceil": ('<narrow = 0, signed = 1, rounding_mode = "CEIL">', 0, 6),
}


def model(node: str, zero: float = 0, bits: float = 8, front: str = "") -> onnx.ModelProto:
    """``node`` makes q of x, with the numbers ``step``, ``zero`` and ``bits``."""
    content = f"""
      <ir_version: 10, opset_import: ["" : 21, "{DOMAIN}" : 1]>
      quantised (float[tokens, {models.K}] x) => (float[tokens, {models.N}] y)
      {{ {front} q = {DOMAIN}.{node} y = MatMul (q, columns) }}"""
    numbers = {"step": 0.1, "zero": zero, "bits": bits}
    return models.parse(content, {"columns": COLUMNS, **{k: np.float32(v) for k, v in numbers.items()}})


def quant(attributes: str, zero: float, bits: float) -> onnx.ModelProto:
    return model(f"Quant {attributes} (x, step, zero, bits)", zero, bits)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_quantizer_becomes_standard_ops(name: str) -> None:
    """Its static scale is no scale of a token: the layer is packed behind it."""
    original = quant(*QUANTIZERS[name])
    packed, (layer,) = models.pack(original)
    assert (layer.status, layer.activation) == (PACKED, "float")
    assert "the scale of its activation quantizer is fixed" in layer.reason
    assert_standard(packed)
    x = models.tokens(3)
    x[0, :5] = [0, 0.05, 0.15, -0.05, -0.15]  # on the boundaries
    numbers = [models.initializers(original)[name] for name in ("step", "zero", "bits")]
    quantised = qonnx.evaluate(ir.from_proto(original).graph[0], [x, *numbers])
    (got,) = models.run(packed, x)
    assert models.largest_difference(got, quantised @ COLUMNS) < 1e-5


def test_a_bipolar_quantizer_becomes_standard_ops() -> None:
    packed, (layer,) = models.pack(model("BipolarQuant (x, step)"))
    assert layer.status == PACKED
    assert_standard(packed)
    x = models.tokens(3)
    x[0, :2] = [0.0, -0.0]
    (got,) = models.run(packed, x)
    signs = np.where(x >= 0, np.float32(0.1), np.float32(-0.1))
    assert models.largest_difference(got, signs @ COLUMNS) < 1e-5


def assert_standard(packed: onnx.ModelProto) -> None:
    onnx.checker.check_model(packed)
    assert {node.domain for node in packed.graph.node} == {"", "bitcc"}
    assert {opset.domain for opset in packed.opset_import} == {"", "bitcc"}


UNKNOWN = {
    "a rounding that is not known": quant('<narrow = 0, signed = 1, rounding_mode = "UP">', 0, 8),
    "no bits": quant("<narrow = 0, signed = 1>", 0, 0),
    "too few inputs": model("Quant (x, step, zero)"),
    "bits of the run": model("Quant (x, step, zero, b)", front="b = ReduceMax <keepdims = 0> (x)"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_quantizer_that_standard_ops_do_not_compute_stays(name: str) -> None:
    packed, (layer,) = models.pack(UNKNOWN[name])
    assert layer.status == PACKED
    assert "Quant" in models.op_types(packed)


def test_without_a_layer_a_quantizer_stays() -> None:
    packed, (layer,) = models.pack(quant("<narrow = 0, signed = 1>", 0, 8), min_weights=10**6)
    assert layer.status == KEPT
    assert models.op_types(packed) == ["Quant", "MatMul"]


def test_a_dequantised_input_has_a_fixed_scale_as_well() -> None:
    content = f"""
      <ir_version: 10, opset_import: ["" : 21]>
      quantised (float[tokens, {models.K}] x) => (float[tokens, {models.N}] y)
      {{ i = QuantizeLinear (x, step, zero) q = DequantizeLinear (i, step, zero) y = MatMul (q, columns) }}"""
    known = {"columns": COLUMNS, "step": np.float32(0.1), "zero": np.int8(0)}
    (layer,) = models.pack(models.parse(content, known))[1]
    assert layer.status == PACKED
    assert "the scale of its activation quantizer is fixed" in layer.reason
