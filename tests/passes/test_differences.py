"""Differences of two products of one tensor are one layer: ternary weights that are stored as two masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import onnx_ir as ir
import pytest

from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    import onnx

K, N = models.K, models.N
_CODES, _SCALE = models.quantized(models.latent())
_UP, _DOWN = ((sign * _CODES.T > 0).astype(np.float32) for sign in (1, -1))  # [K, N]
_BOTH = (np.random.default_rng(3).random((K, N)) < 0.5).astype(np.float32) * (1 - _UP - _DOWN)
_VALUES = {
    "up": _UP,
    "down": _DOWN,
    "up_too": _UP + _BOTH,
    "down_too": _DOWN + _BOTH,
    "up_scaled": _UP * np.float32(_SCALE),
    "down_scaled": _DOWN * np.float32(_SCALE),
    "down_larger": _DOWN * np.float32(1.5),
    "up_rows": np.ascontiguousarray(_UP.T),
    "down_rows": np.ascontiguousarray(_DOWN.T),
    "dense": np.random.default_rng(5).standard_normal((K, N)).astype(np.float32),
    "bias": np.linspace(-1, 1, N, dtype=np.float32),
    "two": np.float32(2),
    "last": np.array([-1]),
    "eps": np.float32(1e-5),
    "qmax": np.float32(127),
    "low": np.float32(-128),
}
QUANTIZER = """a = Abs (x) m = ReduceMax <keepdims = 1> (a, last) c = Clip (m, eps) r = Reciprocal (c)
  s = Mul (r, qmax) v = Mul (x, s) u = Round (v) codes = Clip (u, low, qmax)"""


def model(body: str, rows: str = "2, 3", outputs: str = "") -> onnx.ModelProto:
    """A model of a body that makes ``y``."""
    return models.parse(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        layer (float[{rows}, {K}] x) => (float[{rows}, {N}] y{outputs}) {{ {body} }}""",
        _VALUES,
    )


FLOAT = {
    "two masks": "p = MatMul (x, up) n = MatMul (x, down) y = Sub (p, n)",
    "masks of which both are one in places": "p = MatMul (x, up_too) n = MatMul (x, down_too) y = Sub (p, n)",
    "masks with one scale": "p = MatMul (x, up_scaled) n = MatMul (x, down_scaled) y = Sub (p, n)",
    "a scale and a bias behind them": """p = MatMul (x, up) n = MatMul (x, down) t = Sub (p, n)
      e = Mul (t, two) y = Add (e, bias)""",
    "masks that are stored as rows": """l = Transpose <perm = [1, 0]> (up_rows) p = MatMul (x, l)
      g = Transpose <perm = [1, 0]> (down_rows) n = MatMul (x, g) y = Sub (p, n)""",
}


@pytest.mark.parametrize("body", FLOAT.values(), ids=FLOAT)
def test_they_are_one_layer(body: str) -> None:
    original = model(body)
    (layer,) = models.pack(original)[1]
    assert (layer.name, layer.status, layer.activation) == ("p+n", PACKED, "float")
    assert models.op_types(models.assert_same(original))[0] == "TernaryLinear"


def test_so_are_those_of_a_gemm() -> None:
    body = "p = Gemm <transB = 1> (x, up_rows) n = Gemm <transB = 1> (x, down_rows) y = Sub (p, n)"
    assert models.op_types(models.assert_same(model(body, rows="3"))) == ["TernaryLinear"]


INT8 = {
    "dequantised in front": f"{QUANTIZER} q = Div (codes, s) p = MatMul (q, up) n = MatMul (q, down) "
    "y = Sub (p, n)",
    "dequantised behind": f"""{QUANTIZER} p = MatMul (codes, up) n = MatMul (codes, down) t = Sub (p, n)
      y = Div (t, s)""",
}


@pytest.mark.parametrize("body", INT8.values(), ids=INT8)
def test_with_a_quantizer_they_are_computed_with_integer_kernels(body: str) -> None:
    original = model(body)
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    assert models.op_types(models.assert_same(original)) == ["BitLinear"]


@pytest.mark.parametrize("body", [FLOAT["two masks"], INT8["dequantised behind"]])
def test_one_token_may_have_no_axis_of_its_own(body: str) -> None:
    original = models.parse(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        layer (float[{K}] x) => (float[{N}] y) {{ {body} }}""",
        _VALUES,
    )
    (layer,) = models.pack(original)[1]
    assert layer.status == PACKED
    models.assert_same(original)


def test_their_weights_may_be_made_by_nodes() -> None:
    body = """o = Constant <value = float {0.5}> () g1 = Greater (up, o) g2 = Greater (down, o)
      w1 = Cast <to = 1> (g1) w2 = Cast <to = 1> (g2) p = MatMul (x, w1) n = MatMul (x, w2) y = Sub (p, n)"""
    assert models.op_types(models.assert_same(model(body))) == ["TernaryLinear"]


APART = {
    "a sum": "p = MatMul (x, up) n = MatMul (x, down) y = Add (p, n)",
    "masks with two scales": "p = MatMul (x, up) n = MatMul (x, down_larger) y = Sub (p, n)",
    "a mask and a dense matrix": "p = MatMul (x, up) n = MatMul (x, dense) y = Sub (p, n)",
    "of two tensors": "h = Softsign (x) p = MatMul (x, up) n = MatMul (h, down) y = Sub (p, n)",
    "of one product": "p = MatMul (x, up) y = Sub (p, p)",
    "a Gemm with a bias": "p = Gemm (x, up) n = Gemm (x, down, bias) y = Sub (p, n)",
    "a Gemm that is scaled": "p = Gemm (x, up) n = Gemm <alpha = 2.0> (x, down) y = Sub (p, n)",
}


@pytest.mark.parametrize("name", APART)
def test_what_is_not_one_layer_stays_as_it_is(name: str) -> None:
    original = model(APART[name], rows="3" if "Gemm" in name else "2, 3")
    packed, facts = models.pack(original)
    assert {layer.status for layer in facts} == {KEPT}
    assert packed == ir.to_proto(ir.from_proto(original))


def test_products_that_something_else_reads_stay_as_they_are() -> None:
    original = model(FLOAT["two masks"], outputs=f", float[2, 3, {N}] n")
    packed, facts = models.pack(original)
    assert [layer.status for layer in facts] == [KEPT, KEPT]
    assert packed == ir.to_proto(ir.from_proto(original))


def test_a_layer_that_is_too_small_stays_two_products() -> None:
    original = model(FLOAT["two masks"])
    packed, (layer,) = models.pack(original, min_weights=N * K + 1)
    assert (layer.status, layer.K) == (KEPT, K)
    assert packed == ir.to_proto(ir.from_proto(original))
