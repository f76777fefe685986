"""Decide by value whether a matrix is ternary: codes in {-1, 0, 1} times a scale for tensor, row or group.

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

_MIN_SIDE = 4
_MIN_WEIGHTS = 64  # fewer values prove nothing
_MAX_ZEROS = 0.95
_GROUPS = (256, 128, 64, 32, 16)
_EVIDENCE = 4  # nonzero weights for each scale: with fewer, any sparse matrix would have "one level"
_TOLERANCE = 2e-6  # of values that differ by the rounding of float32 alone
_HALF_TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2}
_NOISE = 3e-2  # of a few distinct values around one level
_NOISE_DISTINCT = 16
_TRAINED = "if it was trained, export it with its activation quantizer in the graph, which proves it"
_QUANTIZED = (
    "if it was trained ternary, export it in eval mode, with the weight quantizer in the graph or merged"
)
_LEAST_SHARE = 0.75  # of the level among them: two scales that lie close together are no noise


@dataclass(frozen=True)
class Ternary:
    """An exact ternary matrix.

    Attributes:
        codes: int8 [N, K], in {-1, 0, 1}.
        scale: float32 [1, 1] (scope ``tensor``), [N, 1] (``row``) or [N, K / group_size], positive.
        group_size: Columns of one scale; K for the scopes ``tensor`` and ``row``.
        noisy: Whether the values stray further from the levels than float32 explains, as those of a
            quantizer that was evaluated in half precision.
    """

    codes: Int8
    scale: NDArray[np.float32]
    group_size: int
    noisy: bool = False

    @property
    def scope(self) -> str:
        """``tensor``, ``row``, or ``group:128`` and the like."""
        if self.scale.shape[1] > 1:
            return f"group:{self.group_size}"
        return "tensor" if self.scale.size == 1 else "row"

    @property
    def zeros(self) -> float:
        """The fraction of zero codes."""
        return 1.0 - np.count_nonzero(self.codes) / self.codes.size

    @property
    def scheme(self) -> str:
        """``binary`` if no weight is zero, else ``ternary``."""
        return "ternary" if self.zeros else "binary"


def to_ternary(matrix: NDArray[Any]) -> Ternary:
    """[N, K] float or integer values -> exact codes and their scale, at the coarsest scope that fits.

    Raises:
        Refused: the values are not ternary; the reason says which rule failed.
    """
    n, k = matrix.shape
    if min(n, k) < _MIN_SIDE or n * k < _MIN_WEIGHTS:
        raise Refused(f"[N, K] = [{n}, {k}] is too small to be told from any other constant")
    half_tolerance = _HALF_TOLERANCE.get(matrix.dtype.name)
    if matrix.dtype.name not in {"float32", "float64"}:
        matrix = matrix.astype(np.float32)
    magnitude = np.abs(matrix)
    largest = magnitude.max()
    if not np.isfinite(largest):
        raise Refused("the weights hold NaN or infinity", fix="check the weights before the export")
    if largest == 0:
        raise Refused("the weights are all zero", fix="check that the weights were loaded before the export")
    scale, group_size, noisy = _scale(magnitude, float(largest), half_tolerance)
    return Ternary(np.sign(matrix).astype(np.int8), scale, group_size, noisy)


def check_structure(codes: Int8) -> None:
    """Tell a trained matrix from a selection, a mask or a transform, for layers that nothing else proves.

    Raises:
        Refused: the matrix is one of those; packing would be lossless, but it is no BitLinear.
    """
    zeros = 1.0 - np.count_nonzero(codes) / codes.size
    if zeros > _MAX_ZEROS:
        raise Refused(
            f"{zeros:.0%} of the weights are zero: a selection or mask, not a BitLinear", fix=_TRAINED
        )
    if codes.min() >= 0 or codes.max() <= 0:
        raise Refused("all nonzero weights have one sign: a mask, not a BitLinear", fix=_TRAINED)
    if np.array_equal(codes[1:, 1:], codes[:-1, :-1]):
        raise Refused(
            "its diagonals are constant: a difference or shift matrix, not a BitLinear", fix=_TRAINED
        )
    if _orthogonal(codes) or _orthogonal(codes.T):
        raise Refused(
            "its rows are orthogonal to each other: a Hadamard or permutation matrix, not a BitLinear",
            fix=_TRAINED,
        )


def _orthogonal(codes: Int8) -> bool:
    some = codes[:64].astype(np.float32)
    gram = some @ some.T
    np.fill_diagonal(gram, 0)
    return not gram.any()


def _scale(
    magnitude: NDArray[Any], largest: float, half_tolerance: float | None
) -> tuple[NDArray[np.float32], int, bool]:
    """(scale [1, 1], [N, 1] or [N, K / g], group size, noisy): exact ones first, even if they are finer."""
    k = magnitude.shape[1]
    scale = _tensor_scale(magnitude, largest, _TOLERANCE)
    if scale is not None:
        return scale, k, False
    scale, worst = _finer_scale(magnitude, _TOLERANCE)
    if scale is not None:
        return scale, k // scale.shape[1], False
    scale = _tensor_scale(magnitude, largest, _NOISE, _NOISE_DISTINCT)
    if scale is None and half_tolerance is not None:
        scale, worst = _finer_scale(magnitude, half_tolerance)
    if scale is not None:
        return scale, k // scale.shape[1], True
    away = f"; values are {worst:.2g} s away" if worst < 1 else ""
    raise Refused(f"the weights are dense: no scale makes them -1, 0 and 1{away}", fix=_QUANTIZED)


def _tensor_scale(
    magnitude: NDArray[Any], largest: float, tolerance: float, most_distinct: int | None = None
) -> NDArray[np.float32] | None:
    """One scale for all weights, or None; ``most_distinct`` values around it make it the level of noise."""
    nonzero = magnitude[magnitude > largest / 2]
    if nonzero.size != np.count_nonzero(magnitude):
        return None  # some value lies between zero and half of the largest
    mean = float(nonzero.mean(dtype=np.float64))
    residual = max(largest - mean, mean - float(nonzero.min())) / mean
    if residual > tolerance:
        return None
    mode, share, distinct = _mode(nonzero)
    if most_distinct is not None and (
        share < _LEAST_SHARE or distinct > min(most_distinct, nonzero.size / _EVIDENCE)
    ):
        return None
    return np.full((1, 1), mode, np.float32)


def _finer_scale(magnitude: NDArray[Any], tolerance: float) -> tuple[NDArray[np.float32] | None, float]:
    """([N, 1] or [N, K / g], or None if no scope fits; the worst residual)."""
    n, k = magnitude.shape
    worst = 1.0
    sizes = (k, *(g for g in _GROUPS if g < k and k % g == 0))
    if _has_more_levels(magnitude[:64].reshape(-1, sizes[-1])):
        return None, worst  # nor has a coarser scope one level: most dense matrices end here
    for size in sizes:
        scale, worst = _group_scale(magnitude.reshape(-1, size), tolerance)
        if scale is not None:
            return scale.reshape(n, -1), worst
    return None, worst


def _mode(values: NDArray[Any]) -> tuple[float, float, int]:
    """The most frequent value, its share, and how many distinct ones there are (to just over the limit)."""
    best, best_count, distinct, size = float(values[0]), 0, 0, values.size
    while values.size and distinct <= _NOISE_DISTINCT:
        value = values[0]
        others = values[values != value]
        if (count := values.size - others.size) > best_count:
            best, best_count = float(value), count
        values, distinct = others, distinct + 1
    return best, best_count / size, distinct


def _has_more_levels(groups: NDArray[Any]) -> bool:
    """Whether a magnitude lies between zero and half of the largest of its group."""
    half = groups.max(axis=1, keepdims=True) / 2
    return bool(((groups > 0) & (groups <= half)).any())


def _group_scale(groups: NDArray[Any], tolerance: float) -> tuple[NDArray[np.float32] | None, float]:
    """[groups, size] magnitudes -> (a scale for each group or None, the worst residual)."""
    count = np.count_nonzero(groups, axis=1, keepdims=True)
    if _has_more_levels(groups) or count.sum() < _EVIDENCE * np.count_nonzero(count):
        return None, 1.0
    mean = groups.sum(axis=1, keepdims=True, dtype=np.float64) / np.maximum(count, 1)
    largest = groups.max(axis=1, keepdims=True)
    smallest = np.where(groups > 0, groups, largest).min(axis=1, keepdims=True)
    scale = np.where(count == 0, 1, mean)  # a group of zeros has any scale
    worst = float((np.maximum(largest - mean, mean - smallest) / scale).max())
    return (scale.astype(np.float32) if worst <= tolerance else None), worst
