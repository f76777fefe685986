"""The magnitudes of floats as the bits that they are, which are ordered like them, with NaN as the largest.

So half precision, which numpy computes with slowly, is compared without being converted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc.passes.elementwise import widened

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.formats import Int8

    Array = NDArray[Any]

HALVES = frozenset({"float16", "bfloat16"})
"""Names of types."""


def floats(block: Array) -> Array:
    """float64 as it is, everything else as float32, which holds it."""
    if block.dtype == np.float16:
        return widened(block)
    return block if block.dtype == np.float64 else block.astype(np.float32, copy=False)


def comparable(block: Array) -> Array:
    """Halves as they are, other numbers as ``floats``."""
    return block if block.dtype.name in HALVES else floats(block)


def magnitudes_of(values: Array) -> Array:
    """The bits of floats without their signs, unsigned integers."""
    kind = np.dtype(f"u{values.itemsize}").type
    return np.asarray(values.view(kind) & kind(_sign(values) - 1))


def signs_of(values: Array) -> Int8:
    """-1, 0 and 1; that of NaN is 1 or -1."""
    positive = values.view(f"i{values.itemsize}") > 0
    negative = values.view(f"u{values.itemsize}") > _sign(values)
    return np.subtract(positive.view(np.int8), negative.view(np.int8))


def ends_of(values: Array, axis: int | None = None) -> tuple[Array, Array]:
    """The largest magnitudes along an axis, and the smallest nonzero ones, infinity where there are none."""
    magnitudes = magnitudes_of(values)
    largest = np.asarray(magnitudes.max(axis=axis))
    magnitudes -= 1  # zero wraps around to the largest, and back
    smallest = np.asarray(magnitudes.min(axis=axis)) + np.ones(1, magnitudes.dtype)
    largest, smallest = (floats(end.reshape(largest.shape).view(values.dtype)) for end in (largest, smallest))
    return largest, np.where(smallest == 0, np.inf, smallest).astype(largest.dtype)


def _sign(values: Array) -> int:
    return 1 << 8 * values.itemsize - 1
