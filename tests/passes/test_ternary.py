"""Exact codes come back from any ternary matrix, and from no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from models.random_codes import DTYPES, codes_of, dequantised, scales, seeds, shapes

from bitcc.passes._refused import Refused
from bitcc.passes.structure import check_structure
from bitcc.passes.ternary import to_ternary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


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
