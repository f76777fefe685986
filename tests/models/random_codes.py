"""Random ternary codes, and the matrices that are made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.passes.ternary import Ternary

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

seeds = st.integers(0, 2**32 - 1)
sides = st.one_of(st.integers(4, 80), st.sampled_from([16, 32, 64, 128, 256, 512]))
shapes = st.tuples(sides, sides).filter(lambda shape: shape[0] * shape[1] >= 64)
scales = st.floats(1e-3, 1e3)


def codes_of(shape: tuple[int, int], seed: int, zeros: float) -> NDArray[np.int8]:
    """-1, 0 and 1, with that share of zeros."""
    rng = np.random.default_rng(seed)
    return (rng.choice([-1, 1], shape) * (rng.random(shape) >= zeros)).astype(np.int8)


def dequantised(found: Ternary) -> NDArray[Any]:
    """The matrix that was packed."""
    return found.codes.read() * np.repeat(found.scale, found.group_size, axis=1)
