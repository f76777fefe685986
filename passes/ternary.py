"""Decide by value whether a dense matrix is ternary: codes in {-1, 0, 1} times one scale, or one a row.

Trained weights that went through a straight-through estimator carry float noise around -s, 0 and +s; zero
codes are exactly zero in every dtype, and there are few distinct values: two independent tests which no
dense matrix passes. The tolerances were measured on third-party exports with heavy-tailed weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc.passes._refused import Refused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.formats import Int8

MIN_N = 16
MIN_K = 32
_MAX_ZEROS = 0.95
_TOLERANCE = {"float32": 2e-6, "float64": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}
_FALLBACK_TOLERANCE = 3e-2
_FALLBACK_DISTINCT = 16
_FALLBACK_NOISY = 0.1


@dataclass(frozen=True)
class Ternary:
    """An exact ternary matrix.

    Attributes:
        codes: int8 [N, K], in {-1, 0, 1}.
        scale: float32 [1] (scope ``tensor``) or [N] (scope ``row``), positive.
    """

    codes: Int8
    scale: NDArray[np.float32]

    @property
    def scope(self) -> str:
        """``tensor`` or ``row``."""
        return "tensor" if self.scale.size == 1 else "row"

    @property
    def zeros(self) -> float:
        """The fraction of zero codes."""
        return 1.0 - np.count_nonzero(self.codes) / self.codes.size


def to_ternary(matrix: NDArray[Any]) -> Ternary:
    """[N, K] float or integer values -> exact codes and their scale, at the coarsest scope that fits.

    Raises:
        Refused: the values are not those of a BitLinear; the reason says which rule failed.
    """
    n, k = matrix.shape
    if n < MIN_N or k < MIN_K:
        raise Refused(f"[N, K] = [{n}, {k}] is smaller than the smallest BitLinear, [{MIN_N}, {MIN_K}]")
    tolerance = _TOLERANCE.get(matrix.dtype.name, 2e-6)
    if matrix.dtype.name not in {"float32", "float64"}:
        matrix = matrix.astype(np.float32)
    magnitude = np.abs(matrix)
    largest = magnitude.max()
    if not np.isfinite(largest):
        raise Refused("the weights hold NaN or infinity")
    if largest == 0:
        raise Refused("the weights are all zero")
    scale = _tensor_scale(magnitude, float(largest), tolerance)
    if scale is None:
        try:
            scale = _row_scale(magnitude, tolerance)
        except Refused:
            scale = _noisy_tensor_scale(magnitude, float(largest), tolerance)
            if scale is None:
                raise
    codes = (np.sign(matrix) * (magnitude > 0)).astype(np.int8)
    _check_structure(codes)
    return Ternary(codes, scale)


def _tensor_scale(magnitude: NDArray[Any], largest: float, tolerance: float) -> NDArray[np.float32] | None:
    nonzero = magnitude[magnitude > largest / 2]
    if nonzero.size != np.count_nonzero(magnitude) or _residual(nonzero) > tolerance:
        return None
    return np.array([_mode(nonzero)[0]], np.float32)


def _noisy_tensor_scale(
    magnitude: NDArray[Any], largest: float, tolerance: float
) -> NDArray[np.float32] | None:
    """One scale with more noise on few weights: large ones leave it in a straight-through sum.

    Two scales that lie near to each other, of rows or of matrices that were joined, are no noise.
    """
    nonzero = magnitude[magnitude > largest / 2]
    if nonzero.size != np.count_nonzero(magnitude) or _residual(nonzero) > _FALLBACK_TOLERANCE:
        return None
    mode, distinct = _mode(nonzero)
    noisy = np.count_nonzero(np.abs(nonzero - mode) > tolerance * mode) / nonzero.size
    if distinct > _FALLBACK_DISTINCT or noisy > _FALLBACK_NOISY:
        return None
    return np.array([mode], np.float32)


def _residual(nonzero: NDArray[Any]) -> float:
    mean = float(nonzero.mean(dtype=np.float64))
    return max(float(nonzero.max()) - mean, mean - float(nonzero.min())) / mean


def _mode(values: NDArray[Any]) -> tuple[float, int]:
    """The most frequent value, and how many distinct ones there are (counted to just over the limit)."""
    best, best_count, distinct = float(values[0]), 0, 0
    while values.size and distinct <= _FALLBACK_DISTINCT:
        value = values[0]
        others = values[values != value]
        if (count := values.size - others.size) > best_count:
            best, best_count = float(value), count
        values, distinct = others, distinct + 1
    return best, distinct


def _row_scale(magnitude: NDArray[Any], tolerance: float) -> NDArray[np.float32]:
    largest = magnitude.max(axis=1, keepdims=True)
    nonzero = magnitude > largest / 2
    if np.count_nonzero(nonzero) != np.count_nonzero(magnitude):
        raise Refused("the weights are dense: they have more levels than -s, 0 and +s")
    count = np.maximum(nonzero.sum(axis=1, keepdims=True), 1)
    mean = np.where(nonzero, magnitude, 0).sum(axis=1, keepdims=True, dtype=np.float64) / count
    residual = np.where(nonzero, np.abs(magnitude - mean), 0).max(axis=1, keepdims=True)
    worst = float((residual / np.where(mean == 0, 1, mean)).max())
    if worst > tolerance:
        raise Refused(
            f"the weights have more levels than -s, 0 and +s: values are {worst:.2g} s away from them"
        )
    scale = np.where(mean == 0, 1, mean).astype(np.float32)  # a row of zeros has any scale
    return scale.reshape(-1)


def _check_structure(codes: Int8) -> None:
    zeros = 1.0 - np.count_nonzero(codes) / codes.size
    if zeros > _MAX_ZEROS:
        raise Refused(f"{zeros:.0%} of the weights are zero: a selection or mask rather than a BitLinear")
    if codes.min() >= 0 or codes.max() <= 0:
        raise Refused("all nonzero weights have one sign: a mask rather than a BitLinear")
    some = codes[:64].astype(np.float32)
    gram = some @ some.T
    np.fill_diagonal(gram, 0)
    if not gram.any():
        raise Refused(
            "the rows are orthogonal to each other: a Hadamard or permutation matrix, not a BitLinear"
        )
