"""The steps of the numpy spec of ``bitcc::BitLinear``: norm, activation codes, accumulators."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from models.op import DTYPES

from bitcc import ops
from bitcc.ops import ActScale, ActScope, ActType, BitLinear, Norm

every_form = pytest.mark.parametrize("form", ActScale)


def test_one_scale_for_the_tensor_is_that_of_its_largest_token() -> None:
    x = np.array([[1, 2, -4], [0.5, 0.25, 0]], np.float32)
    codes, inverse = ops.quantize(x, BitLinear(K=3, N=1, act_scope=ActScope.TENSOR, qmax=128.0))
    np.testing.assert_array_equal(codes, [[32, 64, -128], [16, 8, 0]])
    np.testing.assert_array_equal(inverse, [[1 / 32], [1 / 32]])


@pytest.mark.parametrize("k", [1, 100, 65536])
def test_accumulators_are_the_integer_product(k: int) -> None:
    rng = np.random.default_rng(k)
    codes = rng.integers(-128, 128, (4, k)).astype(np.int32)
    codes[0], codes[1] = -128, 127
    weights = rng.integers(-1, 2, (5, k)).astype(np.int8)
    weights[0], weights[1] = -1, 1
    acc = ops.accumulate(codes, weights)
    assert acc.dtype == np.int32
    np.testing.assert_array_equal(acc, codes.astype(np.int64) @ weights.T.astype(np.int64))


@every_form
@given(seed=st.integers(0, 2**32 - 1), qmax=st.sampled_from([127.0, 128.0]))
@example(seed=0, qmax=127.0)
def test_codes_round_half_to_even_within_their_bounds(form: ActScale, seed: int, qmax: float) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((4, 50)) * np.exp(rng.uniform(-5, 5, (4, 1)))).astype(np.float32)
    codes, inverse = ops.quantize(x, BitLinear(K=50, N=1, act_scale=form, qmax=qmax))
    assert codes.min() >= -128
    assert codes.max() <= 127
    exact = x.astype(np.float64) * qmax / np.abs(x).max(axis=1, keepdims=True)
    clipped = np.clip(exact, -128, 127)
    assert np.abs(codes - clipped).max() <= 0.5 + 1e-4
    np.testing.assert_allclose(inverse[:, 0], np.abs(x).max(axis=1) / qmax, rtol=5e-7)


def test_exact_halves_go_to_the_even_code() -> None:
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127]], np.float32)
    for form in ActScale:
        codes, _ = ops.quantize(x, BitLinear(K=7, N=1, act_scale=form))
        np.testing.assert_array_equal(codes, [[0, 2, 2, 0, -2, -2, 127]])


@pytest.mark.parametrize(
    ("rounding", "dtype"), [(ActType.FLOAT16, "float16"), (ActType.BFLOAT16, "bfloat16")]
)
def test_codes_and_scales_are_those_of_half_precision(rounding: ActType, dtype: str) -> None:
    half = DTYPES[dtype][0]
    x = np.random.default_rng(0).standard_normal((50, 200)).astype(half)
    scale = half.type(1) / np.abs(x).max(axis=1, keepdims=True) * half.type(127)
    codes, inverse = ops.quantize(x.astype(np.float32), BitLinear(K=200, N=1, act_type=rounding))
    exact = np.rint((x * scale).astype(np.float32))
    np.testing.assert_array_equal(codes, np.minimum(exact, 127))
    np.testing.assert_array_equal(inverse, 1 / scale.astype(np.float32))
    others = ops.quantize(x.astype(np.float32), BitLinear(K=200, N=1))[0]
    assert (codes != others).any()


def test_the_norm_divides_by_the_root_of_the_mean_square() -> None:
    x = np.random.default_rng(0).standard_normal((7, 300)).astype(np.float32)
    gain = np.linspace(0.5, 2, 300, dtype=np.float32)
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-3) * gain
    got = ops.normalize(x, gain, BitLinear(K=300, N=1, norm=Norm.RMS, norm_eps=1e-3))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=4e-7)


def test_the_forms_of_the_scale_round_differently() -> None:
    """Or one of them would do: by an ulp of the scale, or a code of an input that lies between two."""
    largest = np.random.default_rng(0).uniform(1, 2, (5000, 1)).astype(np.float32)
    between = (np.arange(126, dtype=np.float32) + np.float32(0.5)) / 127 * largest
    x = np.hstack([largest, between])
    found = [ops.quantize(x, BitLinear(K=127, N=1, act_scale=form, act_eps=1e-9)) for form in ActScale]
    for i, (codes, inverse) in enumerate(found):
        for other_codes, other_inverse in found[i + 1 :]:
            assert (codes != other_codes).any()
            assert np.abs(codes - other_codes).max() == 1
            np.testing.assert_allclose(inverse, other_inverse, rtol=4e-7)


def test_the_quantizer_has_a_name_for_reports() -> None:
    assert [BitLinear(1, 1, act_scope=scope).activation for scope in ActScope] == [
        "int8_token",
        "int8_tensor",
    ]
