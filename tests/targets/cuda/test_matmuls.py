"""The CUDA matmuls, run on the host, are the integer product and the epilogue of the op, exactly."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcc.formats import t2
from bitcc.targets import _cuda

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

few = settings(max_examples=15, deadline=None)
MATMULS = ("gemv", "gemm_few", "gemm", "gemm_many")
ORDERS = range(3)
TYPES = {"float": np.dtype(np.float32), "float16": np.dtype(np.float16)}
TYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)


def kernel(family: str, element: str = "float") -> _cuda.Kernel:
    (found,) = (k for k in _cuda.KERNELS if k.family == family and k.element.name == element)
    return found


@st.composite
def operands(draw: st.DrawFn, family: str) -> tuple[Array, Array]:
    """(M, K) int8 activations and (N, K) weights, random or extreme."""
    n, k = draw(st.integers(1, 150)), draw(st.integers(1, 700) | st.sampled_from([4096, 4097, 4200]))
    m = 1 if family == "gemv" else draw(st.integers(1, 64) | st.sampled_from([65, 130]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q, w = rng.integers(-128, 128, (m, k), np.int8), rng.integers(-1, 2, (n, k), np.int8)
    if draw(st.booleans()):
        q[:] = draw(st.sampled_from([-128, 127]))
    if draw(st.booleans()):
        w[:] = draw(st.integers(-1, 1))
    return q, w


@pytest.mark.parametrize("family", MATMULS)
@given(data=st.data(), order=st.sampled_from(ORDERS))
@few
def test_the_accumulators_are_the_integer_product(
    emulated: Any, family: str, data: st.DataObject, order: int
) -> None:
    q, w = data.draw(operands(family))
    np.testing.assert_array_equal(multiply(emulated, family, q, w, order=order), product(q, w))


@pytest.mark.parametrize("element", TYPES)
@pytest.mark.parametrize("family", MATMULS)
@pytest.mark.parametrize("bias_first", [0, 1])
@pytest.mark.parametrize("n", [37, 40])  # rows of Y that are aligned to four elements are stored by fours
def test_every_operation_of_the_epilogue_is_rounded(
    emulated: Any, family: str, element: str, bias_first: int, n: int
) -> None:
    rng = np.random.default_rng(1)
    m, k = (1 if family == "gemv" else 11), 130
    q, w = rng.integers(-128, 128, (m, k), np.int8), rng.integers(-1, 2, (n, k), np.int8)
    inverse, scale, bias = (rng.normal(0, 1, size).astype(np.float32) for size in (m, n, n))
    y = multiply(emulated, family, q, w, element, inverse, scale, bias, bias_first)
    acc, factor = product(q, w).astype(np.float32), inverse[:, None] * scale
    want = (acc + bias) * factor if bias_first else acc * factor + bias
    np.testing.assert_array_equal(y, want.astype(TYPES[element]))


@pytest.mark.parametrize("element", TYPES)
@pytest.mark.parametrize("family", MATMULS[1:])
def test_every_number_of_tokens_up_to_64(emulated: Any, family: str, element: str) -> None:
    rng = np.random.default_rng(7)
    for m in range(1, 65):
        n, k = 33 + m % 4, 129 + m % 3  # odd and even
        q, w = rng.integers(-128, 128, (m, k), np.int8), rng.integers(-1, 2, (n, k), np.int8)
        y = multiply(emulated, family, q, w, element)
        np.testing.assert_array_equal(y, product(q, w).astype(np.float32).astype(TYPES[element]))


@pytest.mark.parametrize("weight", [-1, 1])
@pytest.mark.parametrize("family", MATMULS)
def test_the_largest_sums_fit(emulated: Any, family: str, weight: int) -> None:
    q, w = np.full((1, 65536), -128, np.int8), np.full((3, 65536), weight, np.int8)
    np.testing.assert_array_equal(multiply(emulated, family, q, w), product(q, w))


@pytest.mark.parametrize("family", MATMULS)
def test_no_barrier_can_be_left_out(emulated: Any, family: str) -> None:
    rng = np.random.default_rng(2)
    m, n, k = (1 if family == "gemv" else 9), 40, 9000
    q, w = rng.integers(-128, 128, (m, k), np.int8), rng.integers(-1, 2, (n, k), np.int8)
    want = product(q, w)
    barriers = emulated.barriers[kernel(family).symbol]
    assert barriers
    for without in barriers:
        results = [multiply(emulated, family, q, w, order=order, without=without) for order in ORDERS]
        assert any((result != want).any() for result in results)


def test_the_small_multiplications_of_turing_make_the_large_one(emulated: Any) -> None:
    rng = np.random.default_rng(6)
    fragments = rng.integers(-(2**31), 2**31, (32, 6)).astype(np.int32)
    whole, parts = np.zeros((2, 32, 4), np.int32)
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (fragments, whole, parts))
    assert emulated.library.multiply_both_ways(*pointers) == 0
    # as the PTX manual says: registers of a and b are four columns of K, those of acc are [row, token]
    a = fragments[:, :4].copy().view(np.int8).reshape(8, 4, 2, 2, 4)  # group, part, half of K, half of rows
    b = fragments[:, 4:].copy().view(np.int8).reshape(8, 4, 2, 4)
    rows = np.asarray(a.transpose(3, 0, 2, 1, 4).reshape(16, 32), int)
    tokens = np.asarray(b.transpose(0, 2, 1, 3).reshape(8, 32), int)
    want = (rows @ tokens.T).reshape(2, 8, 4, 2).transpose(1, 2, 0, 3).reshape(32, 4)
    np.testing.assert_array_equal(whole, want)
    np.testing.assert_array_equal(parts, want)


def product(q: Array, w: Array) -> Array:
    """Exact: the sums are below 2^53."""
    return np.asarray(q.astype(float) @ w.T.astype(float), np.int32)


def multiply(
    emulated: Any, family: str, q: Array, w: Array, element: str = "float", inverse: Array | None = None,
    scale: Array | None = None, bias: Array | None = None, bias_first: int = 0, order: int = 0,
    without: int = -1,
) -> Array:  # fmt: skip
    """Y [M, N]; without scales and a bias, the accumulators."""
    (m, k), n = q.shape, len(w)
    packed = t2.pack(w)
    tiles, k_blocks, _ = packed.shape
    codes = np.zeros((m, 16 * k_blocks), np.int8)
    codes[:, :k] = q
    chosen = kernel(family, element)
    blocks = (-(-16 * tiles // chosen.rows), -(-m // chosen.tokens))
    got = emulated.launch(
        chosen, blocks, order, without,
        q=codes, w=packed, sums=q.sum(1, dtype=np.int32),
        inverse=np.ones(m, np.float32) if inverse is None else inverse,
        scale=np.ones(n, np.float32) if scale is None else scale,
        bias=np.zeros(n, np.float32) if bias is None else bias,
        y=np.zeros((m, n), TYPES[element]),
        tokens=m, n=n, tiles=tiles, k_blocks=k_blocks, bias_first=bias_first,
    )  # fmt: skip
    return got["y"].reshape(m, n)
