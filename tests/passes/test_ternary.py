"""Exact codes come back from any ternary matrix, with the noise that a straight-through estimator leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcc.passes._refused import Refused
from bitcc.passes.ternary import to_ternary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(16, 80), st.integers(32, 200))
scales = st.floats(1e-3, 1e3)


def codes_of(shape: tuple[int, int], seed: int, zeros: float) -> NDArray[np.int8]:
    rng = np.random.default_rng(seed)
    return (rng.choice([-1, 1], shape) * (rng.random(shape) >= zeros)).astype(np.int8)


@given(shapes, seeds, scales, st.floats(0, 0.9), st.sampled_from(list(DTYPES)))
def test_codes_times_one_scale_give_the_codes_and_the_scale(
    shape: tuple[int, int], seed: int, scale: float, zeros: float, dtype: str
) -> None:
    codes = codes_of(shape, seed, zeros)
    matrix = codes.astype(DTYPES[dtype]) * DTYPES[dtype](scale)
    found = to_ternary(matrix)
    np.testing.assert_array_equal(found.codes, codes)
    assert found.codes.dtype == np.int8
    assert found.scope == "tensor"
    assert found.scale == np.float32(DTYPES[dtype](scale))
    assert found.zeros == pytest.approx(np.mean(codes == 0))


@given(shapes, seeds, scales, st.floats(0, 0.9), st.sampled_from(["float64", "float32"]))
def test_codes_times_one_scale_a_row_give_the_codes_and_the_scales(
    shape: tuple[int, int], seed: int, scale: float, zeros: float, dtype: str
) -> None:
    codes = codes_of(shape, seed, zeros)
    rows = np.random.default_rng(seed).uniform(1, 5, (shape[0], 1)) * scale
    rows = rows.astype(DTYPES[dtype])
    found = to_ternary(codes * rows)
    np.testing.assert_array_equal(found.codes, codes)
    assert found.scope == "row"
    used = codes.any(axis=1)
    np.testing.assert_allclose(found.scale[used], rows[used, 0].astype(np.float32), rtol=2e-7)


@given(shapes, seeds, st.sampled_from(["int8", "int32", "int64"]))
def test_integer_codes_are_ternary_with_scale_one(shape: tuple[int, int], seed: int, dtype: str) -> None:
    codes = codes_of(shape, seed, 0.4)
    found = to_ternary(codes.astype(dtype))
    np.testing.assert_array_equal(found.codes, codes)
    assert found.scale == 1


@settings(max_examples=50)
@given(st.sampled_from(["gaussian", "heavy"]), shapes, st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_the_noise_of_a_straight_through_estimator_does_not_move_a_code(
    kind: str, shape: tuple[int, int], seed: int, size: float
) -> None:
    weight = models.latent(kind, shape, seed) * np.float32(size)
    codes, scale = models.quantized(weight)
    found = to_ternary(models.noisy(weight))
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.scale, [scale], rtol=3e-7)


def test_one_very_large_latent_weight_does_not_hide_the_codes() -> None:
    weight = models.latent("outlier")
    codes, scale = models.quantized(weight)
    found = to_ternary(models.noisy(weight))
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.scale, [scale], rtol=3e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_noise_that_was_computed_in_half_precision_is_understood(dtype: str) -> None:
    weight = models.latent().astype(DTYPES[dtype])
    codes, _ = models.quantized(weight)
    np.testing.assert_array_equal(to_ternary(models.noisy(weight)).codes, codes)


def test_a_row_of_zeros_has_any_positive_scale() -> None:
    codes = codes_of((16, 64), 0, 0.3)
    codes[3] = 0
    found = to_ternary(codes * np.linspace(1, 3, 16, dtype=np.float32)[:, None])
    np.testing.assert_array_equal(found.codes, codes)
    assert (found.scale > 0).all()


@given(shapes, seeds, st.floats(0, 0.9))
def test_real_weights_are_refused_however_sparse(shape: tuple[int, int], seed: int, zeros: float) -> None:
    rng = np.random.default_rng(seed)
    matrix = (rng.standard_normal(shape) * (rng.random(shape) >= zeros)).astype(np.float32)
    with pytest.raises(Refused) as caught:
        to_ternary(matrix)
    assert "the weights" in caught.value.reason


@given(shapes, seeds, st.sampled_from([3, 4, 5, 8]))
def test_weights_of_more_bits_are_refused(shape: tuple[int, int], seed: int, bits: int) -> None:
    top = 2 ** (bits - 1)
    matrix = np.random.default_rng(seed).integers(-top, top, shape).astype(np.float32)
    with pytest.raises(Refused) as caught:
        to_ternary(matrix * np.float32(0.01))
    assert "more levels than -s, 0 and +s" in caught.value.reason
