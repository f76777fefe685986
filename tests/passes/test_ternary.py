"""Exact codes come back from any ternary matrix, with the noise that a straight-through estimator leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import models
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitcc.passes._refused import Refused
from bitcc.passes.ternary import Ternary, check_structure, to_ternary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

seeds = st.integers(0, 2**32 - 1)
sides = st.one_of(st.integers(4, 80), st.sampled_from([16, 32, 64, 128, 256, 512]))
shapes = st.tuples(sides, sides).filter(lambda shape: shape[0] * shape[1] >= 64)
scales = st.floats(1e-3, 1e3)


def codes_of(shape: tuple[int, int], seed: int, zeros: float) -> NDArray[np.int8]:
    rng = np.random.default_rng(seed)
    return (rng.choice([-1, 1], shape) * (rng.random(shape) >= zeros)).astype(np.int8)


def dequantised(found: Ternary) -> Array:
    """The matrix that was packed."""
    return found.codes.read() * np.repeat(found.scale, found.group_size, axis=1)


@given(shapes, seeds, scales, st.floats(0, 0.9), st.sampled_from(list(DTYPES)))
def test_codes_times_one_scale_give_the_codes_and_the_scale(
    shape: tuple[int, int], seed: int, scale: float, zeros: float, dtype: str
) -> None:
    codes = codes_of(shape, seed, zeros)
    codes[0, 0] = 1
    matrix = codes.astype(DTYPES[dtype]) * DTYPES[dtype](scale)
    found = to_ternary(matrix)
    np.testing.assert_array_equal(found.codes.read(), codes)
    assert found.scope == "tensor"
    assert found.scale.shape == (1, 1)
    assert found.group_size == shape[1]
    assert not found.noisy
    assert found.scale == np.float32(DTYPES[dtype](scale))
    assert found.zeros == pytest.approx(np.mean(codes == 0))


@given(shapes, seeds, scales, st.floats(0, 0.9), st.sampled_from(list(DTYPES)))
def test_codes_times_one_scale_a_row_give_the_codes_and_the_scales(
    shape: tuple[int, int], seed: int, scale: float, zeros: float, dtype: str
) -> None:
    codes = codes_of(shape, seed, zeros)
    rows = np.random.default_rng(seed).uniform(1, 5, (shape[0], 1)) * scale
    rows = rows.astype(DTYPES[dtype])
    assume(enough_evidence(codes, shape[1]))
    assume(len(np.unique(rows[codes.any(axis=1)])) > 1)
    found = to_ternary(codes.astype(DTYPES[dtype]) * rows)
    np.testing.assert_array_equal(found.codes.read(), codes)
    assert (found.scope, found.group_size, found.noisy) == ("row", shape[1], False)
    assert found.scale.shape == (shape[0], 1)
    used = codes.any(axis=1)
    np.testing.assert_allclose(found.scale[used], rows[used].astype(np.float32), rtol=2e-7)


def enough_evidence(codes: Array, size: int) -> bool:
    """Whether four weights vouch for each scale."""
    count = np.count_nonzero(codes.reshape(-1, size), axis=1)
    return bool(count.sum() >= 4 * np.count_nonzero(count))


@given(
    n=st.integers(4, 40),
    groups=st.integers(2, 6),
    size=st.sampled_from([16, 32, 64, 128, 256]),
    seed=seeds,
    zeros=st.floats(0, 0.7),
    dtype=st.sampled_from(list(DTYPES)),
)
def test_codes_times_one_scale_a_group_give_the_codes_and_the_scales(
    n: int, groups: int, size: int, seed: int, zeros: float, dtype: str
) -> None:
    codes = codes_of((n, groups * size), seed, zeros)
    scales = np.random.default_rng(seed).uniform(1, 5, (n, groups)).astype(DTYPES[dtype])
    assume(len(np.unique(scales[0])) > 1)
    assume(enough_evidence(codes, size))
    matrix = codes.astype(DTYPES[dtype]) * np.repeat(scales, size, axis=1)
    found = to_ternary(matrix)
    np.testing.assert_array_equal(found.codes.read(), codes)
    assert found.group_size >= size  # neighbours may have one scale by chance
    assert not found.noisy
    np.testing.assert_allclose(dequantised(found), matrix.astype(np.float32), rtol=2e-7)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_groups_need_four_weights_for_each_scale(columns: int) -> None:
    """With fewer, real values that stand alone would be levels."""
    rng = np.random.default_rng(columns)
    codes = rng.choice([-1, 1], (40, 256)) * (np.arange(256) % 16 < columns)
    scales = np.repeat(rng.uniform(1, 5, (40, 16)), 16, axis=1)
    with pytest.raises(Refused, match="the weights are dense"):
        to_ternary((codes * scales).astype(np.float32))


@pytest.mark.parametrize("columns", [4, 5, 16])
def test_groups_with_four_weights_for_each_scale_are_found(columns: int) -> None:
    rng = np.random.default_rng(columns)
    codes = rng.choice([-1, 1], (40, 256)) * (np.arange(256) % 16 < columns)
    scales = np.repeat(rng.uniform(1, 5, (40, 16)), 16, axis=1)
    assert to_ternary((codes * scales).astype(np.float32)).scope == "group:16"


@pytest.mark.parametrize("k", [100, 120])
def test_groups_divide_the_row(k: int) -> None:
    codes = codes_of((20, k), 0, 0.3)
    scales = np.repeat(np.random.default_rng(0).uniform(1, 5, (20, 10)), k // 10, axis=1)
    with pytest.raises(Refused, match="the weights are dense"):
        to_ternary((codes * scales).astype(np.float32))


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


@pytest.mark.parametrize("value", [0.98, 0.999, 1.001, 1.02])
def test_a_few_values_beside_the_level_are_noise(value: float) -> None:
    codes = codes_of((60, 96), 0, 0.3)
    matrix = codes * np.float32(0.5)
    matrix[:, ::5] *= np.float32(value)
    found = to_ternary(matrix)
    assert (found.scope, found.noisy) == ("tensor", True)
    assert found.scale == np.float32(0.5)
    np.testing.assert_array_equal(found.codes.read(), codes)


def test_as_many_values_as_weights_are_no_noise() -> None:
    """In a small matrix a few weights are few values, whatever they are."""
    matrix = np.zeros((8, 8), np.float32)
    matrix.flat[::5] = np.linspace(1, 1.03, 13) * np.where(np.arange(13) % 2, 1, -1)
    with pytest.raises(Refused, match="the weights are dense"):
        to_ternary(matrix)


@given(shapes, seeds, st.floats(0, 0.9))
def test_a_matrix_without_zeros_is_binary(shape: tuple[int, int], seed: int, zeros: float) -> None:
    codes = codes_of(shape, seed, zeros)
    codes[0, 0] = 1
    found = to_ternary(codes.astype(np.float32))
    assert found.scheme == ("ternary" if (codes == 0).any() else "binary")


@given(shapes, seeds, st.sampled_from(["int8", "int32", "int64"]))
def test_integer_codes_are_ternary_with_scale_one(shape: tuple[int, int], seed: int, dtype: str) -> None:
    codes = codes_of(shape, seed, 0.4)
    codes[0, 0] = 1
    found = to_ternary(codes.astype(dtype))
    np.testing.assert_array_equal(found.codes.read(), codes)
    assert found.scale == 1


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
    assert "the weights are dense" in refused((codes * np.float32(0.1)).astype(DTYPES[dtype]))


def test_a_row_of_zeros_has_any_positive_scale() -> None:
    codes = codes_of((16, 64), 0, 0.3)
    codes[3] = 0
    found = to_ternary(codes * np.linspace(1, 3, 16, dtype=np.float32)[:, None])
    np.testing.assert_array_equal(found.codes.read(), codes)
    assert (found.scale > 0).all()


def refused(matrix: Array) -> str:
    """Why a matrix of float activations is kept."""
    with pytest.raises(Refused) as caught:
        check_structure(to_ternary(matrix))
    return caught.value.reason


@settings(max_examples=400)
@given(shapes, seeds, st.one_of(st.floats(0, 0.5), st.floats(0.5, 0.97)), st.sampled_from(list(DTYPES)))
def test_real_weights_are_refused_however_sparse(
    shape: tuple[int, int], seed: int, zeros: float, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal(shape) * (rng.random(shape) >= zeros)
    assert "weights are" in refused(matrix.astype(DTYPES[dtype]))


@settings(max_examples=200)
@given(shapes, seeds, st.floats(0.5, 0.97), st.sampled_from([2, 4, 8, 16, 32]))
def test_real_weights_that_were_pruned_in_blocks_are_refused(
    shape: tuple[int, int], seed: int, zeros: float, block: int
) -> None:
    rng = np.random.default_rng(seed)
    n, k = shape
    kept = np.repeat(rng.random((n, -(-k // block))) >= zeros, block, axis=1)[:, :k]
    reason = refused((rng.standard_normal(shape) * kept).astype(np.float32))
    assert "weights are" in reason


@settings(max_examples=200)
@given(shapes, seeds, st.sampled_from([3, 4, 5, 8]), st.floats(0, 0.9), st.sampled_from([None, 16, 32, 128]))
def test_weights_of_more_bits_are_refused(
    shape: tuple[int, int], seed: int, bits: int, zeros: float, group: int | None
) -> None:
    rng = np.random.default_rng(seed)
    n, k = shape
    top = 2 ** (bits - 1)
    codes = rng.integers(-top, top, shape) * (rng.random(shape) >= zeros)
    assume(len(np.unique(np.abs(codes[codes != 0]))) > 1)
    size = group or k
    scales = np.repeat(rng.uniform(0.5, 2, (n, -(-k // size))), size, axis=1)[:, :k]
    matrix = codes * (scales if group else np.float32(0.01))
    assert "weights are" in refused(matrix.astype(np.float32))


@given(shapes, seeds, st.floats(0, 0.8))
def test_random_codes_do_not_look_like_a_transform(shape: tuple[int, int], seed: int, zeros: float) -> None:
    assume(min(shape) >= 16)
    check_structure(to_ternary(codes_of(shape, seed, zeros)))


@pytest.mark.parametrize("shape", [(3, 64), (64, 3), (7, 9), (1, 1000)])
def test_a_matrix_that_is_too_small_proves_nothing(shape: tuple[int, int]) -> None:
    with pytest.raises(Refused, match="is too small to be told from any other constant"):
        to_ternary(codes_of(shape, 0, 0.3))


@pytest.mark.parametrize("shape", [(4, 16), (16, 4), (8, 8)])
def test_the_smallest_matrices_are_read(shape: tuple[int, int]) -> None:
    codes = codes_of(shape, 0, 0.3)
    np.testing.assert_array_equal(to_ternary(codes).codes.read(), codes)
