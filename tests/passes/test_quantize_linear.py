"""Activations quantised by QuantizeLinear with a scale of the run, as exporters write fake quantisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import pytest

from bitcc.facts import PACKED

if TYPE_CHECKING:
    import onnx

N, K = models.N, models.K
CODES, SCALE = models.quantized(models.latent())
KNOWN = {
    "w": np.ascontiguousarray(CODES.T) * np.float32(SCALE),
    "w_int8": np.ascontiguousarray(CODES.T),
    "w_scale": np.float32(SCALE),
    "fixed": np.float32(0.05),
    "eps": np.float32(1e-5),
    "127": np.float32(127),
    "-128": np.float32(-128),
    "int8_0": np.int8(0),
    "int8_3": np.int8(3),
    "int8_127": np.int8(127),
    "int8_-127": np.int8(-127),
    "uint8_128": np.uint8(128),
}
PARTS = {
    "step": """a = Abs (x) m = ReduceMax <keepdims = 0> (a) c = Clip (m, eps) s = Div (c, "127")""",
    "quantised": "codes = QuantizeLinear (x, s, int8_0)",
    "dequantised": "q = DequantizeLinear (codes, s, int8_0)",
    "product": "y = MatMul (q, w)",
}


def model(**parts: str) -> onnx.ModelProto:
    body = " ".join({**PARTS, **parts}.values())
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      layer (float[2, 3, {K}] x) => (float[2, 3, {N}] y) {{ {body} }}"""
    return models.parse(content, KNOWN)


SPELLED = {
    "both": {},
    "without the zero point of what is dequantised": {"dequantised": "q = DequantizeLinear (codes, s)"},
    "bounded codes": {
        "quantised": """c8 = QuantizeLinear (x, s, int8_0) codes = Clip (c8, "int8_-127", int8_127)"""
    },
    "multiplied back": {"dequantised": "f = Cast <to = 1> (codes) q = Mul (f, s)"},
    "divided and rounded": {
        "quantised": """v = Div (x, s) u = Round (v) b = Clip (u, "-128", "127") codes = Cast <to = 3> (b)"""
    },
    "a product of integers": {
        "dequantised": "q = Identity (codes)",
        "product": """i = MatMulInteger (q, w_int8) f = Cast <to = 1> (i) t = Mul (s, w_scale)
          y = Mul (f, t)""",
    },
    "both sides": {
        "product": "v = DequantizeLinear (w_int8, w_scale, int8_0) y = MatMul (q, v)",
    },
}


@pytest.mark.parametrize("name", SPELLED)
def test_it_is_computed_with_integer_kernels(name: str) -> None:
    original = model(**SPELLED[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_tensor", "")
    packed = models.assert_same(original)
    assert models.op_types(packed) == ["BitLinear"]
    (node,) = models.bit_linears(packed)
    assert models.attributes(node)["act_min"] == (-127 if name == "bounded codes" else -128)


ASYMMETRIC = "its activation quantizer has a zero point, or codes that are not int8"
OTHERS = {
    "uint8": (
        {
            "quantised": "codes = QuantizeLinear (x, s, uint8_128)",
            "dequantised": "q = DequantizeLinear (codes, s, uint8_128)",
        },
        ASYMMETRIC,
    ),
    "uint8 by default": (
        {"quantised": "codes = QuantizeLinear (x, s)", "dequantised": "q = DequantizeLinear (codes, s)"},
        ASYMMETRIC,
    ),
    "a zero point": (
        {
            "quantised": "codes = QuantizeLinear (x, s, int8_3)",
            "dequantised": "q = DequantizeLinear (codes, s, int8_3)",
        },
        ASYMMETRIC,
    ),
    "a zero point on one side": ({"quantised": "codes = QuantizeLinear (x, s, int8_3)"}, ASYMMETRIC),
    "a fixed scale": (
        {
            "quantised": "codes = QuantizeLinear (x, fixed, int8_0)",
            "dequantised": "q = DequantizeLinear (codes, fixed, int8_0)",
        },
        "the scale of its activation quantizer is fixed",
    ),
    "another scale": (
        {"dequantised": "t = Mul (s, s) q = DequantizeLinear (codes, t, int8_0)"},
        "dequantised by another scale",
    ),
    "a mean": (
        {"step": PARTS["step"].replace("ReduceMax", "ReduceMean")},
        "not computed from the input's absolute maximum",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_the_op_does_not_compute_keeps_its_quantizer(name: str) -> None:
    parts, reason = OTHERS[name]
    original = model(**parts)
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    assert reason in layer.reason
    models.assert_same(original)
