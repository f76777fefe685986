"""Every kernel of integers of every variant equals its definition in kernel.h, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.operands import operands, packed

from bitcc.formats import t2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

GAPS = st.integers(0, 63)
SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None)


def expected(q: Array, codes: Array) -> Array:
    """(M, K) activations and (N, K) codes -> (M, N) sums; exact, because they are below 2^53."""
    return np.asarray(q.astype(float) @ (codes.astype(float) - 1).T, np.int32)


@given(seed=SEEDS)
@few
def test_the_packing_of_these_tests_is_the_packing_of_the_format(seed: int) -> None:
    weights = np.random.default_rng(seed).integers(-1, 2, (32, 128), np.int8)
    np.testing.assert_array_equal(packed((weights + 1).astype(np.uint8)).reshape(2, 8, 64), t2.pack(weights))


@given(data=st.data(), gap=GAPS)
@few
def test_gemv_is_the_integer_product(kernels: Any, data: st.DataObject, gap: int) -> None:
    q, codes = data.draw(operands(tokens=1))
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(codes) // 16)] * 2)))
    np.testing.assert_array_equal(
        gemv(kernels, gap, q, codes, begin, end), expected(q, codes)[:, 16 * begin : 16 * end]
    )


@given(data=st.data(), gap=GAPS)
@few
def test_gemm_few_is_the_integer_product(kernels: Any, data: st.DataObject, gap: int) -> None:
    q, codes = data.draw(operands(data.draw(st.integers(2, kernels.row.few_tokens))))
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(codes) // 16)] * 2)))
    np.testing.assert_array_equal(
        gemm_few(kernels, gap, q, codes, begin, end), expected(q, codes)[:, 16 * begin : 16 * end]
    )


@given(data=st.data(), gap=GAPS)
@few
def test_unpacked_codes_are_in_their_order(kernels: Any, data: st.DataObject, gap: int) -> None:
    _, codes = data.draw(operands(tokens=1))
    vectors = 4 * data.draw(st.integers(0, codes.shape[1] // 64))
    np.testing.assert_array_equal(unpack(kernels, gap, codes, vectors), unpacked(codes[:, : 16 * vectors]))


@given(data=st.data(), gap=GAPS)
@few
def test_gemm_is_the_integer_product(kernels: Any, data: st.DataObject, gap: int) -> None:
    q, codes = data.draw(operands(data.draw(st.integers(1, kernels.row.gemm_tokens))))
    np.testing.assert_array_equal(gemm(kernels, gap, q, codes), expected(q, codes))


@given(data=st.data())
@few
def test_gemm_of_some_columns(kernels: Any, data: st.DataObject) -> None:
    q, codes = data.draw(operands(kernels.row.gemm_tokens))
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, q.shape[1] // 64)] * 2)))
    some = slice(64 * first, 64 * last)
    stride = q.shape[1]
    # to the end of the last row and no further
    memory = q.reshape(-1)[some.start : len(q) * stride - (stride - some.stop)]
    got = gemm(kernels, 0, q[:, some], codes[:, some], memory=memory, stride=stride)
    np.testing.assert_array_equal(got, expected(q[:, some], codes[:, some]))


@pytest.mark.parametrize("k", [16384, 65536])
@pytest.mark.parametrize("code", [0, 2, 3])
@pytest.mark.parametrize("value", [-128, 127])
def test_the_largest_sums_fit(kernels: Any, k: int, code: int, value: int) -> None:
    q = np.full((kernels.row.few_tokens, k), value, np.int8)
    codes = np.full((16, k), code, np.uint8)
    np.testing.assert_array_equal(gemv(kernels, 0, q[:1], codes, 0, 1), expected(q[:1], codes))
    np.testing.assert_array_equal(gemm_few(kernels, 0, q, codes, 0, 1), expected(q, codes))
    q = q[: kernels.row.gemm_tokens]
    np.testing.assert_array_equal(gemm(kernels, 0, q, codes), expected(q, codes))


@given(seed=SEEDS, k=st.integers(1, 300), tokens=st.integers(0, 5), gap=GAPS)
@few
def test_absmax_is_the_largest_bit_pattern(kernels: Any, seed: int, k: int, tokens: int, gap: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2**32, (tokens, k), np.uint32)
    result = kernels.call("absmax", gap, bits, np.zeros(tokens, np.int32), k, tokens)[1].read("int32")
    np.testing.assert_array_equal(result, (bits & 0x7FFFFFFF).max(axis=1))


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan, -0.0, 1e-45])
def test_absmax_orders_special_values(kernels: Any, special: float) -> None:
    x = np.zeros(37, np.float32)
    for where in (0, 36):
        x[where] = special
        result = kernels.call("absmax", 0, x, np.zeros(1, np.int32), len(x), 1)[1].read("float32")
        np.testing.assert_array_equal(result[0], abs(np.float32(special)))


@pytest.mark.parametrize("family", ["quantize", "quantize_divide"])
@given(
    seed=SEEDS,
    k=st.integers(1, 300),
    padding=st.integers(0, 70),
    scales=st.lists(st.floats(2**-6, 2**6, width=32), max_size=4),
    bounds=st.sampled_from([(-128, 127), (-127, 127), (-7, 8)]),
    gap=GAPS,
)
@few
def test_quantize_rounds_half_to_even_and_clamps(
    kernels: Any, family: str, seed: int, k: int, padding: int, scales: list[float],
    bounds: tuple[int, int], gap: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    size = (len(scales), k)
    x = np.where(rng.random(size) < 0.5, rng.normal(0, 64, size), rng.integers(-512, 512, size) / 2)
    check_quantize(kernels, family, x.astype(np.float32), padding, scales, bounds, gap)


@pytest.mark.parametrize("family", ["quantize", "quantize_divide"])
def test_every_half_goes_to_its_even_neighbour(kernels: Any, family: str) -> None:
    halves = np.arange(-260, 260, dtype=np.float32)[None] / 2
    check_quantize(kernels, family, halves, 24, [1.0], (-128, 127), 0)


@pytest.mark.parametrize("family", ["finish", "finish_bias_first"])
@given(seed=SEEDS, rows=st.integers(0, 200), tokens=st.integers(0, 5), more=st.integers(0, 20), gap=GAPS)
@few
def test_finish_rounds_every_operation(
    kernels: Any, family: str, seed: int, rows: int, tokens: int, more: int, gap: int
) -> None:
    rng = np.random.default_rng(seed)
    exact = rng.integers(-(2**24), 2**24 + 1, (tokens, rows), np.int32)
    sums = rng.integers(-(2**23), 2**23, tokens, np.int32)
    scale, bias = rng.normal(0, 2.0 ** rng.integers(-30, 30, (2, rows))).astype(np.float32)
    inverse = rng.uniform(-2, 2, tokens).astype(np.float32)
    y = finish(kernels, family, exact + sums[:, None], sums, inverse, scale, bias, more=more, gap=gap)
    a, factor = exact.astype(np.float32), inverse[:, None] * scale
    want = (a + bias) * factor if family == "finish_bias_first" else a * factor + bias
    np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("rows", [3, 37])
def test_a_product_with_the_bias_is_no_negative_zero(kernels: Any, rows: int) -> None:
    ones, sums = np.ones(rows, np.float32), np.array([5, 7], np.int32)
    acc = np.repeat(sums[:, None] - 1, rows, axis=1)
    y = finish(kernels, "finish_bias_first", acc, sums, np.array([-1, 1], np.float32), ones, ones)
    np.testing.assert_array_equal(y.view(np.uint32), 0)


@pytest.mark.parametrize("family", ["finish", "finish_bias_first"])
def test_a_token_that_is_not_finite_is_poisoned(kernels: Any, family: str) -> None:
    ones, sums = np.ones(37, np.float32), np.zeros(2, np.int32)
    inverse = np.array([np.nan, 1], np.float32)
    y = finish(kernels, family, np.zeros((2, 37), np.int32), sums, inverse, ones, ones)
    np.testing.assert_array_equal(np.isnan(y), [[True] * 37, [False] * 37])


def finish(
    kernels: Any, family: str, acc: Array, sums: Array, inverse: Array, scale: Array, bias: Array,
    *, more: int = 0, gap: int = 0,
) -> Array:  # fmt: skip
    """(M, N) sums over codes -> (M, N) outputs; `more` numbers between two tokens stay as they are."""
    tokens, rows = acc.shape
    wide = np.full((tokens, rows + more), 7, np.int32)
    wide[:, :rows] = acc
    y = np.full((tokens, rows + 2 * more), 7, np.float32)
    sizes = rows, tokens, rows + more, rows + 2 * more
    buffers = kernels.call(family, gap, wide, sums, inverse, scale, bias, y, *sizes)
    after = buffers[5].read("float32").reshape(y.shape)
    assert (after[:, rows:] == 7).all()
    return np.asarray(after[:, :rows])


def check_quantize(
    kernels: Any, family: str, x: Array, padding: int, scales: list[float],
    bounds: tuple[int, int], gap: int,
) -> None:  # fmt: skip
    """Compare with numpy, whose float32 arithmetic rounds each step."""
    tokens, k = x.shape
    q, factors = np.full((tokens, k + padding), 99, np.int8), np.array(scales, np.float32)
    arguments = x, q, np.zeros(tokens, np.int32), factors, k, k + padding, *bounds, tokens
    buffers = kernels.call(family, gap, *arguments)
    factor = factors[:, None]
    exact = np.rint(x / factor if family == "quantize_divide" else x * factor)
    values = np.pad(np.clip(exact, *bounds), ((0, 0), (0, padding))).astype(np.int8)
    np.testing.assert_array_equal(buffers[1].read("int8").reshape(q.shape), values)
    np.testing.assert_array_equal(buffers[2].read("int32"), values.sum(axis=1, dtype=int))


def unpacked(codes: Array) -> Array:
    """(N, K) codes -> a byte each, in the order of a panel."""
    n, k = codes.shape
    return codes.reshape(n // 16, 16, k // 16, 4, 4).transpose(0, 2, 3, 1, 4).reshape(-1)


def minus_sums(q: Array, rows: int) -> Array:
    """(M, K) -> (M, rows): where sums over codes begin, so that they become sums over weights."""
    return np.repeat(-q.sum(1, dtype=np.int32), rows).reshape(len(q), rows)


def gemv(kernels: Any, gap: int, q: Array, codes: Array, begin: int, end: int) -> Array:
    """(1, K) and (N, K) -> (1, 16 * (end - begin))."""
    return multiply(kernels, "gemv", gap, q, codes, begin, end)


def gemm_few(kernels: Any, gap: int, q: Array, codes: Array, begin: int, end: int) -> Array:
    """(M, K) and (N, K) -> (M, 16 * (end - begin))."""
    return multiply(kernels, "gemm_few", gap, q, codes, begin, end, len(q))


def multiply(
    kernels: Any, family: str, gap: int, q: Array, codes: Array, begin: int, end: int, *tokens: int
) -> Array:
    """With packed weights."""
    acc = minus_sums(q, 16 * (end - begin))
    arguments = (q.shape[1] // 16, begin, end, *tokens)
    buffers = kernels.call(family, gap, q, packed(codes), acc, *arguments)
    return np.asarray(buffers[2].read("int32").reshape(acc.shape))


def unpack(kernels: Any, gap: int, codes: Array, vectors: int) -> Array:
    """The first vectors of all tiles."""
    tiles, k_blocks = codes.shape[0] // 16, codes.shape[1] // 16
    panel = np.zeros(tiles * vectors * 256, np.uint8)
    buffers = kernels.call("unpack", gap, packed(codes), panel, k_blocks, vectors, tiles)
    return np.asarray(buffers[1].read("uint8"))


def gemm(
    kernels: Any, gap: int, q: Array, codes: Array, memory: Array | None = None, stride: int | None = None
) -> Array:
    """(M, K) and (N, K) -> (M, N); `memory` holds rows of q that are `stride` apart."""
    m, stride = len(q), stride or q.shape[1]
    beyond = -m % kernels.row.gemm_unit  # tokens; what is in their memory does not matter
    q_memory = np.pad(q.reshape(-1) if memory is None else memory, (0, beyond * stride), constant_values=99)
    acc = np.pad(minus_sums(q, len(codes)), ((0, beyond), (0, 0)), constant_values=2**31 - 1)
    arguments = (stride, codes.shape[1] // 16, len(codes) // 16, m)
    (state,) = kernels.call("gemm_begin", 0, np.zeros(64, np.uint8))
    buffers = kernels.call("gemm", gap, q_memory, unpacked(codes), acc, *arguments)
    kernels.call("gemm_end", 0, state.read("uint8"))
    return np.asarray(buffers[2].read("int32").reshape(acc.shape))[:m]
