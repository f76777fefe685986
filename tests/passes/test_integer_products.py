"""A product of integers, of activation codes and ternary weights, is the one that BitLinear computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import pytest

from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    import onnx

N, K = models.N, models.K
CODES, SCALE = models.quantized(models.latent())
KNOWN = {
    "w": np.ascontiguousarray(CODES.T),
    "rows": CODES,
    "w_127": np.ascontiguousarray(CODES.T) * np.int8(127),
    "w_float": np.ascontiguousarray(CODES.T).astype(np.float32),
    "w_unsigned": np.ascontiguousarray(CODES.T + 1).astype(np.uint8),
    "w_scale": np.float32(SCALE),
    "bias": np.linspace(-1, 1, N, dtype=np.float32),
    **models.QUANTIZER_CONSTANTS,
    "zero": np.int8(0),
    "one": np.uint8(1),
    "zeros": np.zeros(N, np.int8),
    "step": np.float32(1),
    "flat": np.array([-1, K]),
    "back": np.array([2, 3, N]),
}
SCALED = "f = Cast <to = 1> (sums) d = Div (f, scale) m = Mul (d, w_scale) y = Add (m, bias)"
PRODUCTS = {
    "codes": f"sums = MatMulInteger (q, w) {SCALED}",
    "zero points of zero": f"sums = MatMulInteger (q, w, zero, zero) {SCALED}",
    "weights of 127": f"sums = MatMulInteger (q, w_127) {SCALED}",
    "a weight that is transposed": f"t = Transpose (rows) sums = MatMulInteger (q, t) {SCALED}",
    "a weight that is cast": f"t = Cast <to = 3> (w_float) sums = MatMulInteger (q, t) {SCALED}",
    "a weight that is quantised": f"""t = QuantizeLinear (w_float, step, zero)
      sums = MatMulInteger (q, t) {SCALED}""",
    "a MatMul of int32": f"""a = Cast <to = 6> (q) b = Cast <to = 6> (w) sums = MatMul (a, b) {SCALED}""",
    "a MatMul of int64": f"""a = Cast <to = 7> (q) b = Cast <to = 7> (w) sums = MatMul (a, b) {SCALED}""",
    "a weight on the left": """t = Transpose <perm = [0, 2, 1]> (q) sums = MatMulInteger (rows, t)
      f = Cast <to = 1> (sums) u = Transpose <perm = [0, 2, 1]> (f) y = Div (u, scale)""",
    "tokens that are flattened": """t = Reshape (q, flat) sums = MatMulInteger (t, w) f = Cast <to = 1> (sums)
      u = Reshape (f, back) y = Div (u, scale)""",
}


def model(body: str, codes: str = "q = Cast <to = 3> (codes)") -> onnx.ModelProto:
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      integers (float[2, 3, {K}] x) => (float[2, 3, {N}] y) {{ {models.quantizer()} {codes} {body} }}"""
    return models.parse(content, KNOWN)


@pytest.mark.parametrize("name", PRODUCTS)
def test_it_is_packed(name: str) -> None:
    original = model(PRODUCTS[name])
    (layer,) = models.pack(original)[1]
    assert layer.op == ("MatMul" if "MatMul of" in name else "MatMulInteger")
    assert (layer.status, layer.activation) == (PACKED, "int8_token")
    assert models.op_types(models.assert_same(original)) == ["BitLinear"]


KEPT_PRODUCTS = {
    "no scale": (
        "sums = MatMulInteger (q, w) y = Cast <to = 1> (sums)",
        "not divided by the activation scale",
    ),
    "sums that are used twice": (
        """sums = MatMulInteger (q, w) f = Cast <to = 1> (sums) g = Cast <to = 1> (sums)
        d = Div (f, scale) y = Add (d, g)""",
        "integer sums are used otherwise",
    ),
    "sums that are computed with": (
        "i = MatMulInteger (q, w) sums = Add (i, i) " + SCALED,
        "integer sums are used otherwise",
    ),
    "sums in half precision": (
        "sums = MatMulInteger (q, w) h = Cast <to = 10> (sums) f = Cast <to = 1> (h) y = Div (f, scale)",
        "integer sums are used otherwise",
    ),
    "int32 sums that are computed with": (
        f"a = Cast <to = 6> (q) b = Cast <to = 6> (w) i = MatMul (a, b) sums = Add (i, i) {SCALED}",
        "integer sums are used otherwise",
    ),
    "int32 of no codes": (
        f"a = Cast <to = 6> (x) b = Cast <to = 6> (w) sums = MatMul (a, b) {SCALED}",
        "it multiplies integers: there is no activation quantizer",
    ),
    "weights with a zero point": (f"sums = MatMulInteger (q, w, zero, zeros) {SCALED}", "a zero point"),
    "unsigned weights": (
        f"sums = MatMulInteger (q, w_unsigned, zero, one) {SCALED}",
        "a zero point",
    ),
}


@pytest.mark.parametrize("name", KEPT_PRODUCTS)
def test_it_is_kept(name: str) -> None:
    body, reason = KEPT_PRODUCTS[name]
    assert_kept(model(body), reason)


CODES_OF_OTHERS = {
    "asymmetric": ("q, d_scale, d_zero = DynamicQuantizeLinear (x)", "(q, w, d_zero)", "a zero point"),
    "unsigned": ("q = Cast <to = 2> (codes)", "(q, w)", "it differs from the original"),
    "not rounded": ("q = Cast <to = 3> (scaled)", "(q, w)", "no activation quantizer"),
}


@pytest.mark.parametrize("name", CODES_OF_OTHERS)
def test_other_codes_are_kept(name: str) -> None:
    codes, inputs, reason = CODES_OF_OTHERS[name]
    assert_kept(model(f"sums = MatMulInteger {inputs} {SCALED}", codes), reason)


def assert_kept(original: onnx.ModelProto, reason: str) -> None:
    (layer,) = models.pack(original)[1]
    assert layer.status == KEPT
    assert reason in layer.reason
