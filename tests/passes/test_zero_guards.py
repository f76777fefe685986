"""Quantizers that put another number in the place of a maximum or a step of zero."""

from __future__ import annotations

import models
import numpy as np
import pytest

from bitcc.facts import PACKED
from bitcc.ops import ActScale

GUARDED = "e = Equal (m, zero) c = Where (e, one, m)"
STEP = {"scaled": "step = Div (c, qmax) v = Div (x, step)", "dequantised": "q = Mul (codes, step)"}
ORDERS = {  # (parts, the smallest maximum that is quantised as in the graph)
    ActScale.RECIPROCAL: ({}, 2.0**-120),
    ActScale.DIVIDE: ({"scaled": "scale = Div (qmax, c) v = Mul (x, scale)"}, 2.0**-120),
    ActScale.STEP_RECIPROCAL: (
        {
            "scaled": "step = Div (c, qmax) r = Reciprocal (step) v = Mul (x, r)",
            "dequantised": "q = Mul (codes, step)",
        },
        2.0**-120,
    ),
    ActScale.QUOTIENT: (STEP, 2.0**-142),
    ActScale.STEP_PRODUCT: ({**STEP, "scaled": "step = Mul (c, inverse) v = Div (x, step)"}, 2.0**-142),
    ActScale.PRODUCT: (
        {
            "scaled": "t = Mul (x, qmax) v = Div (t, c)",
            "dequantised": "t1 = Mul (codes, c) q = Div (t1, qmax)",
        },
        2.0**-149,
    ),
    ActScale.NORMALIZED: (
        {
            "scaled": "t = Div (x, c) v = Mul (t, qmax)",
            "dequantised": "step = Div (c, qmax) q = Mul (step, codes)",
        },
        2.0**-149,
    ),
}


@pytest.mark.parametrize("form", ORDERS, ids=lambda form: form.name)
def test_tokens_that_are_nearly_zero_have_the_codes_of_the_graph(form: ActScale) -> None:
    parts, least = ORDERS[form]
    original = models.assemble(bounded=GUARDED, **parts)
    packed = models.assert_same(original)
    (node,) = models.bit_linears(packed)
    assert models.attributes(node)["act_scale"] == form
    assert 0 < models.attributes(node)["act_floor"] <= least
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, models.K)).astype(np.float32)
    x[0, 0] = 0
    x[..., 1:] *= np.float32(max(2 * least, 2.0**-126))  # products with smaller ones have few bits
    x[..., 0] = 0
    (got,), (want,) = models.run(packed, x), models.run(original, x)
    assert np.isfinite(want).all()
    assert not got[0, 0].any()
    assert models.largest_difference(got, want) < 1e-3


SCATTERED = (
    "{} i = NonZero (e) j = Transpose <perm = [1, 0]> (i) n = Cast <to = 7> (e) f = Reshape (n, last) "
)
COUNTED = "number = ReduceSum (f) filled = Expand ({}, number) {} = ScatterND ({}, j, filled)"
INDEXED = {
    "c[c == 0] = 1": {
        "bounded": SCATTERED.format("e = Equal (m, zero)") + COUNTED.format("one", "c", "m"),
        **STEP,
    },
    "step[step == 0] = 1": {
        "bounded": "c = Identity (m)",
        "scaled": "s = Div (c, qmax) "
        + SCATTERED.format("e = Equal (s, zero)")
        + COUNTED.format("one", "step", "s")
        + " v = Div (x, step)",
        "dequantised": "q = Mul (codes, step)",
    },
    "c[c < eps] = eps": {
        "bounded": SCATTERED.format("e = Less (m, eps)") + COUNTED.format("eps", "c", "m"),
    },
}
OTHERS = {
    "c[c == 0] += 1": {
        "bounded": INDEXED["c[c == 0] = 1"]["bounded"].replace("ScatterND", 'ScatterND <reduction = "add">')
    },
    "c[c == 1] = 127": {
        "bounded": SCATTERED.format("e = Equal (m, one)") + COUNTED.format("qmax", "c", "m"),
    },
    "c[c < eps] = 1": {
        "bounded": SCATTERED.format("e = Less (m, eps)") + COUNTED.format("one", "c", "m"),
    },
    "c[x[:1] == 0] = 1": {
        "bounded": SCATTERED.format("p = Neg (m) e = Equal (p, zero)") + COUNTED.format("one", "c", "m"),
    },
}


@pytest.mark.parametrize("name", INDEXED)
def test_a_number_may_be_put_in_the_place_of_zero_by_an_index(name: str) -> None:
    original = models.assemble(**INDEXED[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    packed = models.assert_same(original)
    x = models.tokens(2, 3)
    x[1, 1] = 0
    assert models.largest_difference(models.run(packed, x)[0], models.run(original, x)[0]) < 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_what_puts_other_numbers_by_an_index_keeps_its_quantizer(name: str) -> None:
    original = models.assemble(**OTHERS[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    models.assert_same(original)
