"""`gemv_float` of every variant: its definition in kernel.h within float32, and exactly where sums are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcc.formats import t2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

GROUPS = [1, 2, 3, 4, 5, 8, 16, 1000]  # vectors of 16 columns, at most all
GAPS = st.integers(0, 63)
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None)


def gemv_float(
    kernels: Any, gap: int, x: Array, w: Array, scale: Array, group: int, begin: int, end: int
) -> Array:
    """(K,), (N, K) weights and (G, N or more) scales -> (16 * (end - begin),)."""
    acc = np.full(16 * (end - begin), np.nan, np.float32)
    arguments = (len(x) // 16, group, scale.shape[1], begin, end)
    buffers = kernels.call("gemv_float", gap, x, t2.pack(w), scale, acc, *arguments)
    return np.asarray(buffers[3].read("float32"))


def exact(x: Array, w: Array, scale: Array, group: int) -> tuple[Array, Array]:
    """The sums in float64, and the sums of magnitudes, to which errors are relative."""
    factors = np.repeat(scale[:, : len(w)].astype(float), 16 * group, axis=0)[: len(x)]
    products = w * factors.T * x.astype(float)
    return products.sum(1), np.abs(products).sum(1)


def tolerance(x: Array, magnitudes: Array) -> Array:
    """Of a sum in any order: a rounding for each term, one for its scale and one for the last sum."""
    return (len(x) + 2) * np.finfo(np.float32).eps * magnitudes


@st.composite
def operands(draw: st.DrawFn) -> tuple[Array, Array, Array, int]:
    """Activations, weights, scales with a stride that may be larger than N, and vectors of a group."""
    k = 64 * draw(st.integers(1, 20) | st.sampled_from([40, 108]))
    n = 16 * draw(st.integers(1, 9))
    group = min(draw(st.sampled_from(GROUPS)), k // 16)
    rng = np.random.default_rng(draw(SEEDS))
    groups = -(-(k // 16) // group)
    x = rng.normal(0, 2.0 ** rng.integers(-20, 20, k)).astype(np.float32)
    scale = rng.uniform(-2, 2, (groups, n + draw(st.sampled_from([0, 5])))).astype(np.float32)
    return x, rng.integers(-1, 2, (n, k), np.int8), scale, group


@given(data=st.data(), gap=GAPS)
@few
def test_it_is_the_product_of_its_definition(kernels: Any, data: st.DataObject, gap: int) -> None:
    x, w, scale, group = data.draw(operands())
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(w) // 16)] * 2)))
    got = gemv_float(kernels, gap, x, w, scale, group, begin, end)
    sums, magnitudes = exact(x, w, scale, group)
    rows = slice(16 * begin, 16 * end)
    assert (np.abs(got - sums[rows]) <= tolerance(x, magnitudes[rows])).all()


@given(data=st.data(), seed=SEEDS, gap=GAPS)
@few
def test_sums_of_whole_numbers_are_exact(kernels: Any, data: st.DataObject, seed: int, gap: int) -> None:
    x, w, scale, group = data.draw(operands())
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, len(x)).astype(np.float32)
    scale = (2.0 ** rng.integers(-2, 3, scale.shape)).astype(np.float32)
    got = gemv_float(kernels, gap, x, w, scale, group, 0, len(w) // 16)
    np.testing.assert_array_equal(got, exact(x, w, scale, group)[0])


@pytest.mark.parametrize("group", GROUPS[:-1])
def test_each_column_meets_its_weight_and_its_scale(kernels: Any, group: int) -> None:
    k, n = 192, 32
    rng = np.random.default_rng(group)
    w = rng.integers(-1, 2, (n, k), np.int8)
    scale = rng.uniform(1, 2, (-(-12 // group), n)).astype(np.float32)
    for column in range(k):
        x = np.zeros(k, np.float32)
        x[column] = 1
        got = gemv_float(kernels, 0, x, w, scale, group, 0, 2)
        np.testing.assert_array_equal(got, w[:, column] * scale[column // (16 * group)])


@given(data=st.data())
@few
def test_a_row_does_not_depend_on_how_tiles_are_shared_out(kernels: Any, data: st.DataObject) -> None:
    x, w, scale, group = data.draw(operands())
    tiles = len(w) // 16
    whole = gemv_float(kernels, 0, x, w, scale, group, 0, tiles)
    cut = data.draw(st.integers(0, tiles))
    parts = [gemv_float(kernels, 1, x, w, scale, group, *span) for span in ((0, cut), (cut, tiles))]
    np.testing.assert_array_equal(whole.view(np.uint32), np.concatenate(parts).view(np.uint32))
    alone = [gemv_float(kernels, 2, x, w, scale, group, tile, tile + 1) for tile in range(tiles)]
    np.testing.assert_array_equal(whole.view(np.uint32), np.concatenate(alone).view(np.uint32))


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan, np.float32(3e38), np.float32(1e-45)])
@pytest.mark.parametrize("column", [0, 6, 9, 15, 100])
def test_special_values_meet_weights_as_in_a_dense_product(kernels: Any, special: float, column: int) -> None:
    w = np.random.default_rng(column).integers(-1, 2, (48, 128), np.int8)
    w[:3, column] = [-1, 0, 1]
    x = np.zeros(128, np.float32)
    x[column] = special
    with np.errstate(invalid="ignore"):
        expected = (w[:, column] * np.float32(special)).astype(np.float32)
    got = gemv_float(kernels, 0, x, w, np.ones((1, 48), np.float32), 8, 0, 3)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("k", [16384, 65536])
def test_long_sums_of_one_sign_stay_close(kernels: Any, k: int) -> None:
    x = np.random.default_rng(k).uniform(1, 2, k).astype(np.float32)
    w, scale = np.ones((16, k), np.int8), np.ones((1, 16), np.float32)
    sums, magnitudes = exact(x, w, scale, k // 16)
    got = gemv_float(kernels, 0, x, w, scale, k // 16, 0, 1)
    assert np.max(np.abs(got - sums) / magnitudes) < 1e-5
