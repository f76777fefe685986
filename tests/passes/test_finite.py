"""Quantizers that put numbers in the place of NaN and infinity: nan_to_num, isinf and isfinite."""

from __future__ import annotations

import models
import numpy as np
import pytest

from bitcc.facts import PACKED


def replaced(value: str, out: str, instead: str = "one") -> str:
    """Nodes of nan_to_num as torch's dynamo exporter writes them."""
    return f"""n1 = IsNaN ({value}) n2 = Where (n1, zero, {value}) n3 = Less ({value}, zero)
      n4 = IsInf ({value}) n5 = And (n3, n4) n6 = Where (n5, minus, n2) n7 = Greater ({value}, zero)
      n8 = And (n7, n4) {out} = Where (n8, {instead}, n6) """


def by_double(value: str, out: str) -> str:
    """The same of infinity alone as TorchScript writes it."""
    return f"""d = Cast <to = 11> ({value}) i = IsInf (d) g = Greater ({value}, zero) b = And (i, g)
      {out} = Where (b, most, {value}) """


RECIPROCAL = "r = Reciprocal (m) s = Mul (r, qmax) "
REPLACED = {
    "the maximum": {"maximum": "t = ReduceMax (a, last) " + replaced("t", "m", "most")},
    "the maximum, in double": {"maximum": "t = ReduceMax (a, last) " + by_double("t", "m")},
    "the magnitudes": {"magnitude": "t = Abs (x) " + replaced("t", "a", "most")},
    "the scale": {"bounded": "", "scaled": RECIPROCAL + replaced("s", "scale") + "v = Mul (x, scale)"},
    "an infinite scale": {
        "bounded": "",
        "scaled": RECIPROCAL + "i = IsInf (s) scale = Where (i, one, s) v = Mul (x, scale)",
    },
    "a scale that is not finite": {
        "bounded": "",
        "scaled": RECIPROCAL
        + """i = IsInf (s) j = IsNaN (s) k1 = Not (i) k2 = Not (j) f = And (k1, k2)
          scale = Where (f, s, one) v = Mul (x, scale)""",
    },
    "a scale that is infinity": {
        "bounded": "",
        "scaled": RECIPROCAL + "i = Equal (s, infinity) scale = Where (i, one, s) v = Mul (x, scale)",
    },
    "codes that are not themselves": {
        "bounded": "",
        "scaled": "t = Div (x, m) e = Equal (t, t) o = Where (e, t, zero) v = Mul (o, qmax)",
        "dequantised": "step = Div (m, qmax) q = Mul (step, codes)",
    },
}
OTHERS = {
    "the other way round": {"maximum": "t = ReduceMax (a, last) i = IsNaN (t) m = Where (i, t, one)"},
    "one way of two": {
        "maximum": """t = ReduceMax (a, last) i = IsNaN (t) g = Less (t, two) o = Or (i, g)
          m = Where (o, one, t)"""
    },
    "a number in place of another": {
        "maximum": "t = ReduceMax (a, last) e = Equal (t, two) m = Where (e, one, t)"
    },
    "what it tests is compared": {
        "maximum": """t = ReduceMax (a, last) i = IsInf (t) g = Greater (t, two) o = Xor (i, g)
          m = Where (o, one, t)"""
    },
    "infinite tokens that are kept": {
        "maximum": "t = ReduceMax (a, last) " + replaced("t", "m"),
        "dequantised": "d = Div (codes, scale) q = Clip (d, minus, one)",
    },
    "lost tokens that are zeros": {"dequantised": "d = Div (codes, scale) " + replaced("d", "q")},
    "infinite tokens that have a largest magnitude": {
        "maximum": "t = ReduceMax (a, last) " + replaced("t", "m"),
    },
}


@pytest.mark.parametrize("name", REPLACED)
def test_numbers_are_quantised_as_if_nothing_was_replaced(name: str) -> None:
    original = models.assemble(**REPLACED[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    packed = models.assert_same(original)
    assert models.op_types(packed) == ["BitLinear"]
    x = models.tokens(2, 3)
    x[0, 1] = 0
    (got,), (want,) = models.run(packed, x), models.run(original, x)
    assert np.isfinite(want).all()
    assert models.largest_difference(got, want) < 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_what_keeps_tokens_that_the_op_loses_is_left_alone(name: str) -> None:
    original = models.assemble(**OTHERS[name])
    packed, (layer,) = models.pack(original)
    assert (layer.status, layer.activation) == (PACKED, "float")
    models.assert_same(original)
    x = models.tokens(2, 3)
    x[0, 0, 0], x[1, 1, 1] = np.nan, np.inf
    (got,), (want,) = models.run(packed, x), models.run(original, x)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))


def test_what_follows_a_layer_is_no_part_of_it() -> None:
    """A nan_to_num behind the product stays."""
    original = models.assemble(product="p = MatMul (q, w) " + replaced("p", "y"))
    packed, (layer,) = models.pack(original)
    assert (layer.status, layer.activation) == (PACKED, "int8_token")
    x = models.tokens(2, 3)
    x[0, 0, 0] = np.nan
    (got,), (want,) = models.run(packed, x), models.run(original, x)
    assert np.isfinite(want).all()
    assert np.isfinite(got).all()
