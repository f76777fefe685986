"""The kernels for products of pairs equal their definition in kernel.h, and together the product, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.operands import operands, packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

GAPS = st.integers(0, 63)
few = settings(max_examples=25, deadline=None)


def paired(q: Array) -> tuple[Array, Array]:
    """(M, K) activations -> uint8 (K / 16, M, 16), and what clamping left of them."""
    vectors = q.reshape(len(q), -1, 16).astype(int)
    vectors[:, :, 8:] = vectors[:, :, 8:].clip(-127, 125)
    clamped = vectors.reshape(q.shape)
    shifted = vectors + np.repeat([0, 0, 127, -1], 4)
    return shifted.transpose(1, 0, 2).astype(np.uint8), clamped


def products(pairs: Array) -> Array:
    """Of the pairs of each token, (M,)."""
    first, second = pairs[:, :, 8:12].astype(int), pairs[:, :, 12:].astype(np.int8).astype(int)
    return np.asarray((first * second).sum((0, 2)), np.int32)


def start(codes: Array) -> Array:
    """(N, K) codes -> what is to be taken away from each row, (N,)."""
    groups = codes.reshape(len(codes), -1, 4, 4).astype(int)
    c0, c1 = groups[:, :, 2], groups[:, :, 3]
    return np.asarray((c0 * c1 + 127 * c0 - c1).sum((1, 2)), np.int32)


def gemm_pairs(kernels: Any, gap: int, q: Array, codes: Array, begin: int, end: int) -> Array:
    """(M, rows) sums over codes, by `pair` and `gemm_pairs`, of the activations that clamping leaves."""
    pairs = pair(kernels, gap, q, q.shape[1])[0]
    acc = np.broadcast_to(-start(codes)[16 * begin : 16 * end], (len(q), 16 * (end - begin)))
    acc = np.ascontiguousarray(acc - products(pairs)[:, None])
    arguments = (pairs, packed(codes), acc, q.shape[1] // 16, begin, end, len(q))
    return np.asarray(kernels.call("gemm_pairs", gap, *arguments)[2].read("int32").reshape(len(q), -1))


def pair(kernels: Any, gap: int, q: Array, stride: int) -> tuple[Array, Array, Array]:
    """Pairs, products and whether anything was clamped; tokens are `stride` bytes apart."""
    tokens, k = q.shape
    rows = np.full((tokens, stride), 99, np.int8)
    rows[:, :k] = q
    given = rows.ravel()[: (tokens - 1) * stride + k]  # the last token ends where its columns end
    out = np.zeros((k // 16, tokens, 16), np.uint8)
    counts = (np.zeros(tokens, np.int32), np.zeros(tokens, np.int32))
    buffers = kernels.call("pair", gap, given, out, *counts, stride, k // 16, tokens)
    product, clamped = (buffer.read("int32") for buffer in buffers[2:])
    return buffers[1].read("uint8").reshape(out.shape), product, clamped != 0


@given(data=st.data(), gap=GAPS, between=st.integers(0, 40))
@few
def test_activations_are_paired_as_defined(
    pair_kernels: Any, data: st.DataObject, gap: int, between: int
) -> None:
    q, _ = data.draw(operands(data.draw(st.integers(1, 20))))
    if data.draw(st.booleans()):
        q = q.clip(-127, 125)
    pairs, product, is_clamped = pair(pair_kernels, gap, q, q.shape[1] + between)
    expected, clamped = paired(q)
    np.testing.assert_array_equal(pairs, expected)
    np.testing.assert_array_equal(product, products(expected))
    np.testing.assert_array_equal(is_clamped, (clamped != q).any(1))


@given(data=st.data(), gap=GAPS)
@few
def test_products_of_pairs_are_the_integer_product(pair_kernels: Any, data: st.DataObject, gap: int) -> None:
    q, codes = data.draw(operands(data.draw(st.integers(2, pair_kernels.row.pair_tokens))))
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(codes) // 16)] * 2)))
    expected = paired(q)[1] @ codes.astype(int).T
    np.testing.assert_array_equal(
        gemm_pairs(pair_kernels, gap, q, codes, begin, end), expected[:, 16 * begin : 16 * end]
    )


@pytest.mark.parametrize("k", [16384, 65536])
@pytest.mark.parametrize("code", [0, 2, 3])
@pytest.mark.parametrize("value", [-127, 125])
def test_the_largest_sums_fit(pair_kernels: Any, k: int, code: int, value: int) -> None:
    q = np.full((pair_kernels.row.pair_tokens, k), value, np.int8)
    codes = np.full((16, k), code, np.uint8)
    np.testing.assert_array_equal(
        gemm_pairs(pair_kernels, 0, q, codes, 0, 1), q.astype(int) @ codes.astype(int).T
    )


@given(data=st.data(), gap=GAPS, by=st.integers(-1, 2))
@few
def test_a_column_is_added_to_its_rows(pair_kernels: Any, data: st.DataObject, gap: int, by: int) -> None:
    _, codes = data.draw(operands(tokens=1))
    column = data.draw(st.integers(0, codes.shape[1] - 1))
    acc = np.arange(len(codes), dtype=np.int32)
    arguments = (packed(codes), acc, column, by, codes.shape[1] // 16, len(codes) // 16)
    got = pair_kernels.call("add_column", gap, *arguments)[1].read("int32")
    np.testing.assert_array_equal(got, acc + by * codes[:, column].astype(int))


def test_a_variant_has_all_kernels_for_pairs_or_none(kernels: Any) -> None:
    has = kernels.variant.kernels.has_pairs
    assert {bool(row) for row in (kernels.row.pair, kernels.row.gemm_pairs, kernels.row.add_column)} == {has}
    assert bool(kernels.row.repack_t5) == (has and kernels.variant.kernels.reads_t5)
    assert (kernels.row.pair_tokens > 1) == has
