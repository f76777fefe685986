"""The orders in which an activation scale is computed: each rounds otherwise, and is computed as written."""

from __future__ import annotations

import models
import numpy as np
import pytest

from bitcc.ops import ActScale

FORMS = {
    "x * (127 * (1 / c))": (ActScale.RECIPROCAL, {}),
    "x * (127 / c)": (ActScale.DIVIDE, {"scaled": "scale = Div (qmax, c) v = Mul (x, scale)"}),
    "x / (c / 127)": (
        ActScale.QUOTIENT,
        {"scaled": "step = Div (c, qmax) v = Div (x, step)", "dequantised": "q = Mul (codes, step)"},
    ),
    "x * 127 / c": (
        ActScale.PRODUCT,
        {
            "scaled": "t = Mul (x, qmax) v = Div (t, c)",
            "dequantised": "t1 = Mul (codes, c) q = Div (t1, qmax)",
        },
    ),
    "x / (c * (1 / 127))": (
        ActScale.STEP_PRODUCT,
        {"scaled": "step = Mul (c, inverse) v = Div (x, step)", "dequantised": "q = Mul (codes, step)"},
    ),
    "x / (0.00787 * c)": (
        ActScale.STEP_PRODUCT,
        {"scaled": "step = Mul (written, c) v = Div (x, step)", "dequantised": "q = Mul (codes, step)"},
    ),
    "x / (c / 127 + 1e-5)": (
        ActScale.STEP_SUM,
        {
            "bounded": "c = Identity (m)",
            "scaled": "s = Div (c, qmax) step = Add (s, eps) v = Div (x, step)",
            "dequantised": "q = Mul (codes, step)",
        },
    ),
    "x / (1e-5 + clamp(c) / 127)": (
        ActScale.STEP_SUM,
        {
            "scaled": "s = Div (c, qmax) step = Add (eps, s) v = Div (x, step)",
            "dequantised": "q = Mul (codes, step)",
        },
    ),
    "x / c * 127": (
        ActScale.NORMALIZED,
        {
            "scaled": "t = Div (x, c) v = Mul (t, qmax)",
            "dequantised": "t1 = Div (codes, qmax) q = Mul (t1, c)",
        },
    ),
    "127 * (x / c)": (
        ActScale.NORMALIZED,
        {
            "scaled": "t = Div (x, c) v = Mul (qmax, t)",
            "dequantised": "step = Div (c, qmax) q = Mul (step, codes)",
        },
    ),
    "x * (1 / (c / 127))": (
        ActScale.STEP_RECIPROCAL,
        {
            "scaled": "step = Div (c, qmax) r = Reciprocal (step) v = Mul (x, r)",
            "dequantised": "q = Mul (codes, step)",
        },
    ),
    "1 / (c / 127) * x": (
        ActScale.STEP_RECIPROCAL,
        {
            "scaled": "step = Div (c, qmax) r = Div (one, step) v = Mul (r, x)",
            "dequantised": "q = Div (codes, r)",
        },
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_order_of_the_scale_is_computed_as_it_is_written(name: str) -> None:
    """Inputs that lie between two codes, most of them: another order would round some to the other one."""
    form, parts = FORMS[name]
    original = models.assemble(**parts)
    packed = models.assert_same(original)
    (node,) = models.bit_linears(packed)
    assert (node.op_type, models.attributes(node)["act_scale"]) == ("BitLinear", form)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        largest = rng.uniform(1, 2, (2, 3, 1)).astype(np.float32)
        between = rng.integers(-126, 126, (2, 3, models.K)) + np.float32(0.5)
        x = (between / 127 * largest).astype(np.float32)
        x[..., :1] = largest
        (got,), (want,) = models.run(packed, x), models.run(original, x)
        assert models.largest_difference(got, want) < 1e-5
