"""The kernels for weights in layout `t5` equal their definition in kernel.h, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcc.formats import t5

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

GAPS = st.integers(0, 63)
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None)


def decoded(packed: Array) -> Array:
    """uint8 [tiles, k_blocks, 64] -> codes [N, 20 * k_blocks], for every byte by the definition."""
    tiles, k_blocks, _ = packed.shape
    byte = packed.astype(int).reshape(tiles, k_blocks, 16, 4)
    escaped = byte - 192
    v = np.where(escaped < 0, byte % 64, 64 + escaped // 3)
    last = np.where(escaped < 0, byte // 64, escaped % 3)
    codes = np.stack([v // 27, v // 9 % 3, v // 3 % 3, v % 3, last], 3)
    codes = np.where((byte >= 243)[:, :, :, None], 1, codes)
    return codes.transpose(0, 2, 1, 3, 4).reshape(16 * tiles, 20 * k_blocks)


@st.composite
def packed_weights(draw: st.DrawFn) -> Array:
    """Any bytes, or one of them everywhere."""
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 40) | st.sampled_from([128, 346])), 64)
    packed = np.random.default_rng(draw(SEEDS)).integers(0, 256, shape, np.uint8)
    if draw(st.booleans()):
        packed[:] = draw(st.integers(0, 255))
    return packed


@st.composite
def activations(draw: st.DrawFn, count: int) -> Array:
    """int8 [count], random or extreme."""
    q = np.random.default_rng(draw(SEEDS)).integers(-128, 128, count, np.int8)
    if draw(st.booleans()):
        q[:] = draw(st.sampled_from([-128, 127]))
    return q


def gemv(kernels: Any, gap: int, q: Array, packed: Array, begin: int, end: int) -> Array:
    """The sums over weights of the tiles from begin to end."""
    acc = np.full(16 * (end - begin), -q.sum(dtype=np.int32), np.int32)
    buffers = kernels.call("gemv_t5", gap, q, packed, acc, packed.shape[1], begin, end)
    return np.asarray(buffers[2].read("int32"))


def expected(q: Array, packed: Array) -> Array:
    """The same by the definition; exact, because sums are below 2^53."""
    return np.asarray((decoded(packed).astype(float) - 1) @ q.astype(float), np.int32)


def repacked_columns(count: int) -> list[int]:
    """Of `count` vectors, the columns in the order that `repack_t5` gives them."""
    order = []
    for group in range(0, count, 4):
        vectors = range(group, min(group + 4, count))
        order += [20 * v + j for v in vectors for j in range(16)]
        order += [20 * v + j for v in vectors for j in range(16, 20)]
    return order


def repacked_places(count: int) -> list[int]:
    """Where they are then: a group that is not full leaves places of its last vector free."""
    places = []
    for group in range(0, count, 4):
        begin = group // 4 * 80
        places += range(begin, begin + 20 * min(4, count - group))
    return places


@given(seed=SEEDS)
@few
def test_the_decoding_of_these_tests_is_that_of_the_format(seed: int) -> None:
    weights = np.random.default_rng(seed).integers(-1, 2, (32, 140), np.int8)
    np.testing.assert_array_equal(decoded(t5.FORMAT.pack(weights)) - 1, weights)


@given(data=st.data(), gap=GAPS)
@few
def test_gemv_t5_is_the_integer_product(t5_kernels: Any, data: st.DataObject, gap: int) -> None:
    packed = data.draw(packed_weights())
    q = data.draw(activations(20 * packed.shape[1]))
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(packed))] * 2)))
    np.testing.assert_array_equal(
        gemv(t5_kernels, gap, q, packed, begin, end), expected(q, packed)[16 * begin : 16 * end]
    )


@given(data=st.data(), gap=GAPS)
@few
def test_gemm_few_t5_is_the_integer_product(t5_kernels: Any, data: st.DataObject, gap: int) -> None:
    packed = data.draw(packed_weights())
    tokens = data.draw(st.integers(2, t5_kernels.row.few_tokens))
    columns, stride = 20 * packed.shape[1], 20 * packed.shape[1] + data.draw(st.integers(0, 3)) * 4
    rows = data.draw(activations(tokens * stride)).reshape(tokens, stride)
    q = rows.ravel()[: (tokens - 1) * stride + columns]  # the last token ends where its columns end
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(packed))] * 2)))
    sums = rows[:, :columns].sum(1, dtype=np.int32)
    acc = np.repeat(-sums, 16 * (end - begin))
    buffers = t5_kernels.call("gemm_few_t5", gap, q, packed, acc, stride, packed.shape[1], begin, end, tokens)
    got = buffers[2].read("int32").reshape(tokens, -1)
    for token, row in zip(got, rows, strict=True):
        np.testing.assert_array_equal(token, expected(row[:columns], packed)[16 * begin : 16 * end])


@pytest.mark.parametrize("k_blocks", [819, 1638, 3277])  # the last is K = 65536, padded
@pytest.mark.parametrize("byte", [0, 40, 242, 255])
@pytest.mark.parametrize("value", [-128, 127])
def test_the_largest_sums_fit(t5_kernels: Any, k_blocks: int, byte: int, value: int) -> None:
    q = np.full(20 * k_blocks, value, np.int8)
    q[65536:] = 0
    packed = np.full((1, k_blocks, 64), byte, np.uint8)
    np.testing.assert_array_equal(gemv(t5_kernels, 0, q, packed, 0, 1), expected(q, packed))


@given(data=st.data(), gap=GAPS)
@few
def test_unpacked_digits_are_in_their_order(t5_kernels: Any, data: st.DataObject, gap: int) -> None:
    packed = data.draw(packed_weights())
    count = data.draw(st.integers(0, packed.shape[1]))
    between = data.draw(st.integers(0, 3)) * 64
    tiles, stride = len(packed), 320 * count + between
    panel = np.full((tiles, stride), 99, np.uint8)
    # the last tile ends where its vectors end
    buffers = t5_kernels.call("unpack_t5", gap, packed, panel, packed.shape[1], count, stride, tiles)
    got = buffers[1].read("uint8").reshape(tiles, stride)
    groups = decoded(packed[:, :count]).reshape(tiles, 16, 5 * count, 4).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(got[:, : 320 * count], groups.reshape(tiles, -1))
    assert (got[:, 320 * count :] == 99).all()


@given(data=st.data(), gap=GAPS)
@few
def test_repacked_codes_are_in_the_columns_of_their_groups(
    pair_kernels: Any, data: st.DataObject, gap: int
) -> None:
    packed = data.draw(packed_weights())
    tiles, k_blocks, _ = packed.shape
    count = data.draw(st.integers(0, k_blocks))
    out_blocks = count + -(-count // 4) + data.draw(st.integers(0, 3))
    out = np.full((tiles, out_blocks, 64), 99, np.uint8)
    arguments = (packed, out, k_blocks, count, out_blocks, tiles)
    got = (
        pair_kernels.call("repack_t5", gap, *arguments)[1].read("uint8").reshape(tiles, out_blocks, 16, 1, 4)
    )
    codes = (got >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    columns = decoded(packed[:, :count])[:, repacked_columns(count)]
    codes = codes.transpose(0, 2, 1, 3, 4).reshape(16 * tiles, 16 * out_blocks)
    where = repacked_places(count)
    np.testing.assert_array_equal(codes[:, where], columns)
    assert not np.delete(codes, where, 1).any()


def test_a_variant_has_all_kernels_for_the_layout_or_none(kernels: Any) -> None:
    has = kernels.variant.kernels.reads_t5
    rows = (kernels.row.gemv_t5, kernels.row.gemm_few_t5, kernels.row.unpack_t5)
    assert {bool(row) for row in rows} == {has}
