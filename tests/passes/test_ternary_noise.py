"""Codes come back through the noise that a straight-through estimator leaves, also in half precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import models
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.random_codes import DTYPES, codes_of, dequantised, shapes

from bitcc.passes._refused import Refused
from bitcc.passes.elementwise import Elementwise
from bitcc.passes.matrix import Matrix
from bitcc.passes.ternary import to_ternary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [4, 8, 16])
def test_rows_of_almost_one_scale_are_rows_rather_than_noise(rows: int, dtype: str) -> None:
    codes = codes_of((rows, 256), 0, 0.3)
    scales = np.linspace(1, 1.02, rows).astype(DTYPES[dtype])[:, None]
    found = to_ternary(codes.astype(DTYPES[dtype]) * scales)
    assert (found.scope, found.noisy) == ("row", False)
    np.testing.assert_array_equal(dequantised(found), codes * scales.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rows_with_the_noise_of_half_precision_are_understood(dtype: str) -> None:
    half = DTYPES[dtype]
    codes = codes_of((64, 256), 0, 0.3)
    rows = np.geomspace(0.01, 1, 64).astype(half)[:, None]
    sizes = np.random.default_rng(0).uniform(0.5, 2.5, codes.shape)
    latent = (codes * rows.astype(np.float32) * sizes).astype(half)
    found = to_ternary(latent + (codes.astype(half) * rows - latent))
    np.testing.assert_array_equal(found.codes.read(), codes)
    assert (found.scope, found.noisy) == ("row", True)
    np.testing.assert_allclose(found.scale, rows.astype(np.float32), rtol=2e-2)


@pytest.mark.parametrize("first", [0, 1])
def test_the_level_of_noise_is_the_median_of_all_weights(first: int) -> None:
    """Also where another value, the next one of the type, is frequent in the first rows."""
    shape = (512, 512)
    values = np.array([0.5, np.nextafter(np.float16(0.5), np.float16(1))], np.float16)
    random = np.random.default_rng(0).random(shape)
    is_first = random < np.where(np.arange(shape[0]) < 0.4 * shape[0], 0.9, 0.1)[:, None]
    codes = codes_of(shape, 1, 0.3)
    found = to_ternary(codes.astype(values.dtype) * np.where(is_first, values[first], values[1 - first]))
    assert (found.scope, found.noisy) == ("tensor", True)
    assert found.scale == values[1 - first]
    np.testing.assert_array_equal(found.codes.read(), codes)


def with_values_beside_the_level(value: float, dtype: str) -> tuple[Array, Array]:
    """(codes, values of the type in float32), a fifth of them that many times the others."""
    codes = codes_of((60, 96), 0, 0.3)
    matrix = codes * np.float32(0.5)
    matrix[:, ::5] *= np.float32(value)
    return codes, matrix.astype(DTYPES[dtype]).astype(np.float32)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(0.98, "bfloat16"), (1.02, "bfloat16"), (0.992, "float16"), (0.999, "float16"), (1.001, "float16")],
)
def test_a_few_values_beside_the_level_are_noise(value: float, dtype: str) -> None:
    """As far away as rounding to their type leaves them."""
    codes, matrix = with_values_beside_the_level(value, dtype)
    found = to_ternary(matrix)
    assert (found.scope, found.noisy) == ("tensor", True)
    assert found.scale == np.float32(0.5)
    np.testing.assert_array_equal(found.codes.read(), codes)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        *((value, "float32") for value in (0.95, 0.98, 0.999, 0.99999, 1.00001, 1.001, 1.02, 1.06)),
        *((value, "float16") for value in (0.95, 0.98, 1.02, 1.06)),
        *((value, "bfloat16") for value in (0.95, 1.05)),
    ],
)
def test_values_further_away_than_rounding_to_their_type_are_no_noise(value: float, dtype: str) -> None:
    _, matrix = with_values_beside_the_level(value, dtype)
    with pytest.raises(Refused, match="which rounding does not explain") as refused:
        to_ternary(matrix)
    assert "weight quantizer" in refused.value.fix


def test_noise_of_a_few_large_weights_makes_no_groups() -> None:
    """Most groups of columns are exact, and one with such a weight almost is: at half of its distance."""
    codes = codes_of((64, 512), 0, 0.3)
    scale = np.float32(0.0219)
    sizes = 0.5 + np.abs(np.random.default_rng(0).standard_t(2, codes.shape)).astype(np.float32)
    latent = codes * sizes * scale
    matrix = latent + (codes * scale - latent)
    stray = np.abs(np.abs(matrix[codes != 0]) / scale - 1).max()
    assert 2e-6 < stray < 1e-4
    found = to_ternary(matrix)
    assert (found.scope, found.noisy) == ("tensor", True)
    assert found.scale == scale
    np.testing.assert_array_equal(found.codes.read(), codes)


@pytest.mark.parametrize("transposed", [False, True])
def test_merged_matrices_with_the_noise_of_a_few_large_weights_are_rows(*, transposed: bool) -> None:
    """As onnxsim merges the projections of an attention: a scale for each third of the rows."""
    codes = codes_of((96, 512), 0, 0.3)
    scales = np.repeat(np.float32([0.0219, 0.0183, 0.0207]), 32)[:, None]
    sizes = 0.5 + np.abs(np.random.default_rng(0).standard_t(1.5, codes.shape)).astype(np.float32)
    latent = codes * sizes * scales
    weights = latent + (codes * scales - latent)
    content = Elementwise.of(np.ascontiguousarray(weights.T) if transposed else weights)
    found = to_ternary(Matrix(content, transposed=transposed))
    assert (found.scope, found.noisy) == ("row", True)
    np.testing.assert_array_equal(found.scale, scales)
    np.testing.assert_array_equal(found.codes.read(), codes)


def test_rows_with_as_little_noise_of_many_values_are_dense() -> None:
    codes = codes_of((64, 512), 0, 0.3)
    scales = np.linspace(0.01, 0.02, 64, dtype=np.float32)[:, None]
    noise = np.random.default_rng(0).uniform(1 - 5e-5, 1 + 5e-5, codes.shape).astype(np.float32)
    with pytest.raises(Refused, match="the weights are dense"):
        to_ternary(codes * scales * noise)


@pytest.mark.parametrize("rows", [8, 16])
def test_rows_of_scales_that_lie_as_close_as_noise_are_rows(rows: int) -> None:
    codes = codes_of((rows, 256), 0, 0.3)
    scales = (np.float32(1) + np.linspace(0, 1e-4, rows, dtype=np.float32))[:, None]
    found = to_ternary(codes * scales)
    assert (found.scope, found.noisy) == ("row", False)
    np.testing.assert_array_equal(dequantised(found), codes * scales)


def test_as_many_values_as_weights_are_no_noise() -> None:
    """In a small matrix a few weights are few values, whatever they are."""
    matrix = np.zeros((8, 8), np.float32)
    matrix.flat[::5] = np.linspace(1, 1.03, 13) * np.where(np.arange(13) % 2, 1, -1)
    with pytest.raises(Refused, match="the weights are dense"):
        to_ternary(matrix)


@settings(max_examples=50)
@given(st.sampled_from(["gaussian", "heavy"]), shapes, st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_the_noise_of_a_straight_through_estimator_does_not_move_a_code(
    kind: str, shape: tuple[int, int], seed: int, size: float
) -> None:
    weight = models.latent(kind, shape, seed) * np.float32(size)
    codes, scale = models.quantized(weight)
    found = to_ternary(models.noisy(weight))
    np.testing.assert_array_equal(found.codes.read(), codes)
    np.testing.assert_allclose(found.scale, [[scale]], rtol=3e-7)


def test_one_very_large_latent_weight_does_not_hide_the_codes() -> None:
    weight = models.latent("outlier")
    codes, scale = models.quantized(weight)
    found = to_ternary(models.noisy(weight))
    np.testing.assert_array_equal(found.codes.read(), codes)
    np.testing.assert_allclose(found.scale, [[scale]], rtol=3e-7)


@pytest.mark.parametrize("kind", ["gaussian", "heavy"])
@pytest.mark.parametrize("shape", [(60, 100), (64, 128), (640, 1728)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_noise_that_was_computed_in_half_precision_is_understood(
    dtype: str, shape: tuple[int, int], kind: str
) -> None:
    weight = models.latent(kind, shape).astype(DTYPES[dtype])
    codes, scale = models.quantized(weight)
    found = to_ternary(models.noisy(weight))
    np.testing.assert_array_equal(found.codes.read(), codes)
    np.testing.assert_allclose(found.scale, [[scale]], rtol=2**-7)


@pytest.mark.parametrize("above", [1, 3, 101])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_of_the_weights_may_be_beside_their_level(dtype: str, above: int) -> None:
    """Those of large latent weights; the next value is farthest behind a power of two."""
    half = DTYPES[dtype]
    level = 1 + above * float(ml_dtypes.finfo(half).eps)
    codes, rng = codes_of((64, 128), 0, 0.3), np.random.default_rng(0)
    sizes = np.where(rng.random(codes.shape) < 0.5, 1, rng.uniform(3.1, 3.9, codes.shape))
    latent, wanted = (codes * level * sizes).astype(half), (codes * level).astype(half)
    noisy = latent + (wanted - latent)
    assert (np.abs(noisy[codes != 0].astype(np.float64)) != level).mean() > 0.45
    found = to_ternary(noisy)
    np.testing.assert_array_equal(found.codes.read(), codes)
    assert found.noisy


@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_noise_in_half_precision_around_the_level_of_a_row_or_group_is_understood(
    dtype: str, group: int
) -> None:
    weight = models.latent("heavy", (64, 128), group=group).astype(DTYPES[dtype]).reshape(-1, group)
    parts = [(models.quantized(part[None])[0], models.noisy(part[None])) for part in weight]
    found = to_ternary(np.concatenate([noisy for _, noisy in parts]).reshape(64, 128))
    np.testing.assert_array_equal(
        found.codes.read().reshape(-1, group), np.concatenate([c for c, _ in parts])
    )
    assert found.noisy
    assert found.group_size == group
    assert found.scale.shape == (64, 128 // group)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("share", "away"), [(0.02, 1.2), (0.3, 1.02), (0.001, 1.45)])
def test_a_second_level_in_half_precision_is_no_noise(dtype: str, share: float, away: float) -> None:
    codes = codes_of((256, 256), 0, 0.3).astype(np.float32)
    codes[np.random.default_rng(1).random(codes.shape) < share] *= np.float32(away)
    with pytest.raises(Refused, match="the weights are dense"):
        to_ternary((codes * np.float32(0.1)).astype(DTYPES[dtype]))
