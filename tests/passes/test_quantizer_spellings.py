"""One part of an activation quantizer after the other in every spelling that computes the same codes."""

from __future__ import annotations

import models
import numpy as np
import pytest

from bitcc.facts import PACKED

BOTH_ENDS = "upper = ReduceMax <keepdims = 1> (x, last) lower = ReduceMin <keepdims = 1> (x, last)"
SPELLED = {
    "max(x, -x)": {"magnitude": "n = Neg (x) a = Max (n, x)"},
    "max(x, -1 * x)": {"magnitude": "n = Mul (minus, x) a = Max (x, n)"},
    "max(0 - x, x)": {"magnitude": "n = Sub (zero, x) a = Max (n, x)"},
    "the largest of TopK": {"maximum": "m, index = TopK (a, k)"},
    "max(max, -min)": {"magnitude": BOTH_ENDS, "maximum": "n = Neg (lower) m = Max (upper, n)"},
    "max(-min, max)": {"magnitude": BOTH_ENDS, "maximum": "n = Sub (zero, lower) m = Max (n, upper)"},
    "max(|max|, |min|)": {
        "magnitude": BOTH_ENDS,
        "maximum": "b = Abs (upper) n = Abs (lower) m = Max (n, b)",
    },
    "max(max(max, 0), |min(min, 0)|)": {
        "magnitude": f"{BOTH_ENDS} t = Max (upper, zero) l = Min (zero, lower)",
        "maximum": "n = Abs (l) m = Max (n, t)",
    },
    "max(max(-min, 0), max)": {
        "magnitude": f"{BOTH_ENDS} g = Neg (lower) n = Max (g, zero)",
        "maximum": "m = Max (n, upper)",
    },
    "a floor of the magnitudes": {
        "magnitude": "b = Abs (x) a = Clip (b, eps)",
        "bounded": "c = Identity (m)",
    },
    "an epsilon of the magnitudes": {
        "magnitude": "b = Abs (x) a = Add (b, eps)",
        "bounded": "c = Identity (m)",
    },
    "two floors": {"magnitude": "b = Abs (x) a = Max (b, eps)", "bounded": "c = Max (m, column)"},
    "an axis that is added": {"maximum": "n = ReduceMax <keepdims = 0> (a, last) m = Unsqueeze (n, last)"},
    "an axis that is added to the scale": {
        "maximum": "m = ReduceMax <keepdims = 0> (a, last)",
        "scaled": "r = Reciprocal (c) s = Mul (r, qmax) scale = Unsqueeze (s, last) v = Mul (x, scale)",
    },
    "an axis that is added twice": {
        "maximum": "m = ReduceMax <keepdims = 0> (a, last)",
        "scaled": "r = Reciprocal (c) s = Mul (r, qmax) t = Unsqueeze (s, last) v = Mul (x, t)",
        "dequantised": "step = Div (c, qmax) back = Unsqueeze (step, last) q = Mul (codes, back)",
    },
    "an axis that is added, and a slice of everything": {
        "maximum": """n = ReduceMax <keepdims = 0> (a, last) o = Unsqueeze (n, last)
          m = Slice (o, start, beyond, last, k)"""
    },
    "a pool over everything": {"maximum": "m = GlobalMaxPool (a)"},
    "the root of the largest square": {
        "magnitude": "a = Mul (x, x)",
        "maximum": "t = ReduceMax <keepdims = 1> (a, last) m = Sqrt (t)",
    },
    "the root of a pool over squares": {
        "magnitude": "a = Pow (x, two)",
        "maximum": "t = GlobalMaxPool (a) m = Sqrt (t)",
    },
    "the largest root of squares": {"magnitude": "b = Pow (x, two) a = Sqrt (b)"},
    "a floor of zero and one that is more": {"bounded": "n = Max (zero, m) c = Max (n, eps)"},
    "a floor of zero, which is expanded": {
        "maximum": "m = ReduceMax <keepdims = 0> (a, last)",
        "bounded": "n = Max (zero, m) o = Unsqueeze (n, last) c = Max (o, eps)",
    },
    "a floor and an epsilon": {"bounded": "n = Max (m, eps) c = Add (n, eps)"},
    "a bound that is none, of Min": {"bounded": "t = Min (m, most) c = Max (t, eps)"},
    "a bound that is none, behind the floor": {"bounded": "t = Max (m, eps) c = Min (t, most)"},
    "a quotient that is zero for zero": {
        "bounded": "c = Identity (m)",
        "scaled": "d = Div (x, c) e = Equal (c, zero) t = Where (e, zero, d) v = Mul (t, qmax)",
        "dequantised": "s = Mul (c, inverse) q = Mul (codes, s)",
    },
    "a scale that is expanded": {
        "scaled": """r = Reciprocal (c) s = Mul (r, qmax) d = Shape (x) scale = Expand (s, d)
          v = Mul (x, scale)"""
    },
    "a comparison": {"bounded": "g = Greater (m, eps) c = Where (g, m, eps)"},
    "another comparison": {"bounded": "g = LessOrEqual (m, eps) c = Where (g, eps, m)"},
    "a comparison of the epsilon": {"bounded": "g = Less (eps, m) c = Where (g, m, eps)"},
    "a bound that is none": {"bounded": "c = Clip (m, eps, most)"},
    "one divided by the maximum": {
        "scaled": "r = Div (one, c) scale = Mul (qmax, r) v = Mul (scale, x)",
    },
    "the maximum to the power of -1": {
        "scaled": "r = Pow (c, minus) scale = Mul (qmax, r) v = Mul (scale, x)"
    },
    "codes times the scale to the power of -1": {
        "dequantised": "q = Identity (codes)",
        "product": "p = MatMul (q, w) back = Pow (scale, minus) y = Mul (p, back)",
    },
    "a floor of the step": {
        "bounded": "c = Identity (m)",
        "scaled": "s = Div (c, qmax) step = Max (s, eps) v = Div (x, step)",
        "dequantised": "q = Mul (step, codes)",
    },
    "a floor of the step, which is multiplied": {
        "bounded": "c = Identity (m)",
        "scaled": "s = Mul (inverse, c) step = Max (s, eps) v = Div (x, step)",
        "dequantised": "q = Mul (step, codes)",
    },
    "a floor of the step and an epsilon": {
        "scaled": "s = Div (c, qmax) t = Add (s, eps) step = Clip (t, written) v = Div (x, step)",
        "dequantised": "q = Mul (step, codes)",
    },
    "a floor of the step, and its reciprocal": {
        "bounded": "c = Identity (m)",
        "scaled": "s = Div (c, qmax) step = Clip (s, eps) r = Reciprocal (step) v = Mul (x, r)",
        "dequantised": "q = Div (codes, r)",
    },
    "a step that is no zero": {
        "bounded": "c = Identity (m)",
        "scaled": "s = Div (c, qmax) e = Equal (s, zero) step = Where (e, one, s) v = Div (x, step)",
        "dequantised": "q = Mul (codes, step)",
    },
    "a maximum that is no zero": {"bounded": "g = Greater (m, zero) c = Where (g, m, one)"},
    "a maximum that is not no zero": {
        "bounded": """e = Equal (zero, m) n = Not (e) g = Cast <to = 9> (n) d = Shape (m)
          o = ConstantOfShape <value = float[1] {1.0}> (d) c = Where (g, m, o)"""
    },
    "a maximum that is not below zero": {"bounded": "g = GreaterOrEqual (zero, m) c = Where (g, one, m)"},
    "a step of a maximum that is no zero": {
        "bounded": "c = Identity (m)",
        "scaled": "s = Div (c, qmax) g = Less (zero, m) step = Where (g, s, filled) v = Div (x, step)",
        "dequantised": "q = Mul (codes, step)",
    },
    "a comparison with an epsilon for each token": {"bounded": "g = Less (m, eps) c = Where (g, filled, m)"},
    "a comparison that does not hold": {"bounded": "g = Less (m, eps) n = Not (g) c = Where (n, m, eps)"},
    "an epsilon for each token": {"bounded": "c = Max (m, filled)"},
    "comparisons for bounds": {
        "rounded": """u = Round (v) g = Greater (u, qmax) t = Where (g, qmax, u) h = Less (t, low)
          codes = Where (h, low, t)"""
    },
    "a zero point of zero": {
        "rounded": "u = Round (v) t = Add (u, zero) codes = Clip (t, low, qmax)",
        "dequantised": "d = Sub (codes, zero) q = Div (d, scale)",
    },
    "a zero point of zero in front of Round": {
        "rounded": "t = Add (zero, v) u = Round (t) codes = Clip (u, low, qmax)",
    },
    "a zero point of zero for each token": {
        "rounded": """h = Shape (c) z = Expand (zero, h) u = Round (v) t = Add (u, z)
          codes = Clip (t, low, qmax)""",
        "dequantised": "d = Sub (codes, z) q = Div (d, scale)",
    },
    "half of 255 levels": {
        "scaled": "s = Div (c, middle) r = Reciprocal (s) v = Mul (x, r)",
        "dequantised": "q = Mul (codes, s)",
    },
    "no bounds": {"rounded": "codes = Round (v)"},
    "one bound": {"rounded": "u = Round (v) codes = Max (u, low)"},
    "a residue that is subtracted": {"dequantised": "d = Div (codes, scale) e = Sub (x, d) q = Sub (x, e)"},
    "a residue that is added first": {"dequantised": "d = Div (codes, scale) e = Add (x, d) q = Sub (e, x)"},
    "a type that is its own": {"dequantised": "d = Div (codes, scale) q = CastLike (d, x)"},
    "codes and an axis that is added": {
        "maximum": "m = ReduceMax <keepdims = 0> (a, last)",
        "scaled": "r = Reciprocal (c) s = Mul (r, qmax) scale = Unsqueeze (s, last) v = Mul (x, scale)",
        "dequantised": "q = Identity (codes)",
        "product": "p = MatMul (q, w) t = Reciprocal (s) back = Unsqueeze (t, last) y = Mul (p, back)",
    },
}


@pytest.mark.parametrize("name", SPELLED)
def test_it_is_computed_with_integer_kernels(name: str) -> None:
    original = models.assemble(**SPELLED[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    assert models.op_types(models.assert_same(original)) == ["BitLinear"]


def test_a_floor_of_the_step_is_that_of_the_maximum() -> None:
    (node,) = models.bit_linears(models.pack(models.assemble(**SPELLED["a floor of the step"]))[0])
    floor = np.float32(models.attributes(node)["act_floor"])
    assert floor / np.float32(127) == np.float32(1e-5)


ROUNDED_FLOORS = {
    "a number": "h = Cast <to = 10> (eps) f = Cast <to = 1> (h) c = Max (m, f)",
    "one for each token": "h = Cast <to = 10> (filled) f = Cast <to = 1> (h) c = Max (m, f)",
    "one that is expanded": """d = Shape (m) h = Cast <to = 10> (eps) e = Expand (h, d) f = CastLike (e, m)
                               c = Max (m, f)""",
}


@pytest.mark.parametrize("body", ROUNDED_FLOORS.values(), ids=ROUNDED_FLOORS)
def test_a_floor_is_what_casts_make_of_the_number(body: str) -> None:
    (node,) = models.bit_linears(models.pack(models.assemble(bounded=body))[0])
    assert models.attributes(node)["act_floor"] == np.float32(np.float16(1e-5)) != np.float32(1e-5)


FLAT = {
    "flat magnitudes": "b = Abs (x) a = Reshape (b, last) m = ReduceMax <keepdims = 0> (a, first)",
    "magnitudes of what is flat": "b = Reshape (x, last) a = Abs (b) m = ReduceMax <keepdims = 0> (a, last)",
    "a dimension that is kept": "b = Abs (x) a = Reshape (b, last) m = ReduceMax <keepdims = 1> (a)",
    "the first of them": "b = Abs (x) a = Reshape (b, last) m, index = TopK (a, k)",
}


@pytest.mark.parametrize("name", FLAT)
def test_the_maximum_of_a_tensor_that_is_flattened_is_that_of_the_tensor(name: str) -> None:
    original = models.assemble(magnitude=FLAT[name], maximum="")
    assert models.pack(original)[1][0].activation == "int8_tensor"
    models.assert_same(original)


def test_the_maximum_of_a_token_that_is_an_axis_of_its_own_is_that_of_the_token() -> None:
    original = models.assemble(rows="")
    assert models.pack(original)[1][0].activation == "int8_token"
    models.assert_same(original)


OTHERS = {
    "max(x, x)": {"magnitude": "n = Identity (x) a = Max (n, x)"},
    "max(x, x - 0)": {"magnitude": "n = Sub (x, zero) a = Max (n, x)"},
    "max(max, min)": {"magnitude": BOTH_ENDS, "maximum": "m = Max (upper, lower)"},
    "max(-max, min)": {"magnitude": BOTH_ENDS, "maximum": "n = Neg (upper) m = Max (n, lower)"},
    "max(max, -min of tokens)": {
        "magnitude": "upper = ReduceMax (x, last) lower = ReduceMin (x, k)",
        "maximum": "n = Neg (lower) m = Max (upper, n)",
    },
    "max(max, -min) of something else": {
        "magnitude": "z = Exp (x) upper = ReduceMax (x, last) lower = ReduceMin (z, last)",
        "maximum": "n = Neg (lower) m = Max (upper, n)",
    },
    "max(min(max, 0), -min)": {
        "magnitude": f"{BOTH_ENDS} t = Min (upper, zero)",
        "maximum": "n = Neg (lower) m = Max (n, t)",
    },
    "max(max, -max(min, 0))": {
        "magnitude": f"{BOTH_ENDS} t = Max (lower, zero)",
        "maximum": "n = Neg (t) m = Max (n, upper)",
    },
    "flat magnitudes of something else": {
        "magnitude": "d = Add (x, x) b = Abs (d) a = Reshape (b, last)",
        "maximum": "m = ReduceMax <keepdims = 0> (a, first)",
    },
    "magnitudes of tokens in one axis": {
        "magnitude": "b = Abs (x) a = Reshape (b, pairs)",
        "maximum": "m = ReduceMax <keepdims = 0> (a, last)",
        "bounded": "n = Clip (m, eps) c = ReduceMin (n)",
    },
    "the smallest of TopK": {"maximum": "m, index = TopK <largest = 0> (a, k)"},
    "the index of TopK": {"maximum": "most, index = TopK (a, k) m = Cast <to = 1> (index)"},
    "TopK over the tokens": {"maximum": "m, index = TopK <axis = 1> (a, k)"},
    "TopK without magnitudes": {"maximum": "m, index = TopK (x, k)"},
    "an epsilon twice": {"magnitude": "b = Abs (x) a = Add (b, eps)", "bounded": "c = Add (m, eps)"},
    "an epsilon and a floor": {"magnitude": "b = Abs (x) a = Add (b, eps)"},
    "an upper bound": {"bounded": "c = Clip (m, eps, qmax)"},
    "an upper bound, of Min": {"bounded": "t = Min (m, qmax) c = Max (t, eps)"},
    "an upper bound and a floor": {"bounded": "t = Min (m, qmax) n = Max (t, zero) c = Max (n, eps)"},
    "the root of the largest product": {
        "magnitude": "b = Abs (x) d = Add (b, one) a = Mul (b, d)",
        "maximum": "t = ReduceMax (a, last) m = Sqrt (t)",
    },
    "the root of the largest magnitude": {"maximum": "t = ReduceMax (a, last) m = Sqrt (t)"},
    "the largest square": {"magnitude": "a = Mul (x, x)"},
    "the largest root": {"magnitude": "b = Abs (x) a = Sqrt (b)"},
    "the root of the largest first power": {
        "magnitude": "b = Abs (x) a = Pow (b, one)",
        "maximum": "t = ReduceMax (a, last) m = Sqrt (t)",
    },
    "a pool over the averages": {"maximum": "m = GlobalAveragePool (a)"},
    "a slice of the first ones": {
        "magnitude": "b = Abs (x) a = Slice (b, start, fifty, last, k)",
    },
    "a quotient that is one for zero": {
        "bounded": "c = Identity (m)",
        "scaled": "d = Div (x, c) e = Equal (c, zero) t = Where (e, one, d) v = Mul (t, qmax)",
        "dequantised": "s = Mul (c, inverse) q = Mul (codes, s)",
    },
    "a quotient that is zero for ones": {
        "bounded": "c = Identity (m)",
        "scaled": "d = Div (x, c) e = Equal (c, one) t = Where (e, zero, d) v = Mul (t, qmax)",
        "dequantised": "s = Mul (c, inverse) q = Mul (codes, s)",
    },
    "a comparison with something else": {"bounded": "g = Greater (m, eps) c = Where (g, m, one)"},
    "a comparison the other way round": {"bounded": "g = Greater (m, eps) c = Where (g, eps, m)"},
    "a step with an epsilon, of a maximum with one": {
        "bounded": "c = Add (m, eps)",
        "scaled": "s = Div (c, qmax) step = Add (s, eps) v = Div (x, step)",
        "dequantised": "q = Mul (step, codes)",
    },
    "a step with an epsilon, and its reciprocal": {
        "scaled": "s = Div (c, qmax) step = Add (s, eps) r = Reciprocal (step) v = Mul (x, r)",
        "dequantised": "q = Mul (step, codes)",
    },
    "a floor of the step and a larger epsilon": {
        "scaled": "s = Div (c, qmax) t = Add (s, written) step = Clip (t, eps) v = Div (x, step)",
        "dequantised": "q = Mul (step, codes)",
    },
    "a step with an epsilon, multiplied": {
        "scaled": "s = Mul (c, inverse) step = Add (s, eps) v = Div (x, step)",
        "dequantised": "q = Mul (step, codes)",
    },
    "a step with an epsilon for each token": {
        "scaled": "s = Div (c, qmax) step = Add (s, unlike) v = Div (x, step)",
        "dequantised": "q = Mul (step, codes)",
    },
    "a step that is multiplied, and its reciprocal": {
        "scaled": "step = Mul (c, inverse) r = Reciprocal (step) v = Mul (x, r)",
        "dequantised": "q = Mul (codes, step)",
    },
    "a quotient that is divided": {
        "scaled": "t = Div (x, c) v = Div (t, inverse)",
        "dequantised": "step = Div (c, qmax) q = Mul (codes, step)",
    },
    "a quotient by something else": {
        "scaled": "d = Mul (c, c) t = Div (x, d) v = Mul (t, qmax)",
        "dequantised": "q = Identity (codes)",
    },
    "an epsilon for each token, and no two alike": {"bounded": "c = Max (m, unlike)"},
    "a comparison that does hold": {"bounded": "g = Less (m, eps) n = Not (g) c = Where (n, eps, m)"},
    "a step where something else is no zero": {
        "bounded": "c = Identity (m)",
        "scaled": """s = Div (c, qmax) t = Sub (c, one) g = Less (zero, t) step = Where (g, s, one)
          v = Div (x, step)""",
        "dequantised": "q = Mul (codes, step)",
    },
    "a step of zeros": {"bounded": "e = Equal (m, zero) c = Where (e, zero, m)"},
    "a maximum that is zero": {"bounded": "e = Equal (m, zero) c = Where (e, m, one)"},
    "a maximum that is not one": {"bounded": "e = Equal (m, one) c = Where (e, qmax, m)"},
    "one where something else is zero": {"bounded": "n = Neg (m) e = Equal (n, zero) c = Where (e, one, m)"},
    "a zero point of one": {
        "rounded": "u = Round (v) t = Add (u, one) codes = Clip (t, low, qmax)",
        "dequantised": "d = Sub (codes, one) q = Div (d, scale)",
    },
    "a zero point that is taken from": {
        "rounded": "u = Round (v) t = Sub (zero, u) codes = Clip (t, low, qmax)",
        "dequantised": "d = Sub (zero, codes) q = Div (d, scale)",
    },
    "half of 255 levels without bounds": {
        "scaled": "s = Div (c, middle) r = Reciprocal (s) v = Mul (x, r)",
        "rounded": "codes = Round (v)",
        "dequantised": "q = Mul (codes, s)",
    },
    "infinity for zero": {"bounded": "e = Equal (m, zero) c = Where (e, infinity, m)"},
    "two divided by the maximum": {"scaled": "r = Div (qmax, c) scale = Mul (qmax, r) v = Mul (x, scale)"},
    "one to the power of the maximum": {
        "scaled": "r = Pow (one, c) scale = Mul (qmax, r) v = Mul (x, scale)"
    },
    "the maximum to another power": {"scaled": "r = Pow (c, one) scale = Mul (qmax, r) v = Mul (x, scale)"},
    "a residue of something else": {"dequantised": "d = Div (codes, scale) e = Sub (v, d) q = Sub (x, e)"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_computes_other_codes_keeps_its_quantizer(name: str) -> None:
    original = models.assemble(**OTHERS[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    models.assert_same(original)


def test_a_pool_over_two_axes_is_none_of_tokens() -> None:
    original = models.assemble(rows="2, 1, 3", maximum="m = GlobalMaxPool (a)")
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    models.assert_same(original)


def test_an_axis_that_is_added_elsewhere_is_not_that_of_the_columns() -> None:
    """As many tokens as columns: the shapes fit, and the scale of a token divides a column."""
    axis = "n = ReduceMax <keepdims = 0> (a, last) m = Unsqueeze (n, first)"
    original = models.assemble(rows=str(models.K), maximum=axis)
    assert models.pack(original)[1][0].activation == "float"
    models.assert_same(original)
