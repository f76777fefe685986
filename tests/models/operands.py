"""Codes and activations for kernels of integers: random and extreme ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def packed(codes: Array) -> Array:
    """(N, K) codes in 0..3 -> layout `t2`, also for the code that no packer writes."""
    n, k = codes.shape
    crumbs = codes.reshape(n // 16, 16, k // 16, 4, 4) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    return np.ascontiguousarray(crumbs.sum(3, dtype=np.uint8).transpose(0, 2, 1, 3))


@st.composite
def operands(draw: st.DrawFn, tokens: int) -> tuple[Array, Array]:
    """(M, K) activations and (N, K) codes, random or extreme."""
    k = 64 * draw(st.integers(1, 20) | st.sampled_from([40, 108, 256]))
    n = 16 * draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q = rng.integers(-128, 128, (tokens, k), np.int8)
    codes = rng.integers(0, 4, (n, k), np.uint8)
    if draw(st.booleans()):
        q[:] = draw(st.sampled_from([-128, 127]))
    if draw(st.booleans()):
        codes[:] = draw(st.integers(0, 3))
    return q, codes
