"""Say what a weight that is not ternary comes closest to, in words for a report; nothing is decided by it.

Most rules look at a sample of 64 rows and 1024 columns, so that a large tensor costs no more than a small
one; only a weight that is ternary but for a few values is read whole, to say where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bitcc.passes.matrix import Matrix

    Floats = NDArray[np.float64]

_ROWS, _COLUMNS = 64, 1024
_GROUPS = (128, 64, 32, 16)
_GRIDS = (*range(2, 17), 127, 128)  # largest multiple of the step: 2 to 5 bits, and 8
_EXACT = 4e-3  # of the scale: twice what rounding to bfloat16 does
_ROUNDING = 1e-5
_ON_GRID = 0.02  # of the step
_CLOSE = 0.1  # of the scale: further away is an outlier
_FEW = 0.01  # of the weights that are not zero
_EVIDENCE = 4  # such weights for each scale
_NEAR = 0.25  # off ternary: uniform weights are 35% off, normal ones 46%
_SPARSE = 0.9  # zeros: with few other values, any matrix is near

_SYMMETRIC = "bitcc packs the levels -s, 0 and +s: train with those"
_MORE_BITS = "bitcc packs the levels -s, 0 and +s; onnxruntime's own MatMulNBits takes 2, 4 and 8 bits"
_SHIFTED = "write it as two products: the ternary one, and the shift times the sum of the inputs"
_OUTLIERS = "clip them before the export, or add them as a product of their own beside the ternary one"
_NOISE = "merge the weights in float32 after the last change to them: something moved them off their levels"
_TRAINED = "if it was trained ternary, export it with the weight quantizer in the graph, or merged"
_GAIN = "export without folding the norm into the weights that follow it"


@dataclass(frozen=True)
class Nearest:
    """What a weight comes closest to.

    Attributes:
        words: A few words, such as ``4 levels (2 bits)``.
        fix: What the user can do, where that is known.
    """

    words: str
    fix: str = ""


def sample_of(matrix: Matrix) -> Floats:
    """Up to 64 rows, spread over all of [N, K], and of those the first 1024 columns."""
    n = matrix.shape[0]
    rows = np.linspace(0, n - 1, min(n, _ROWS)).astype(int)
    return matrix.sample(rows, _COLUMNS).astype(np.float64)


def nearest(matrix: Matrix) -> Nearest:
    """What [N, K] weights that are not ternary come closest to; empty words for NaN, infinity and zeros."""
    sample = sample_of(matrix)
    largest = float(np.abs(sample).max())
    if not np.isfinite(largest) or not largest:
        return Nearest("")
    sample /= largest  # so that no square and no sum is too large
    return (
        _three_levels(sample)
        or _column_gain(sample)
        or _almost_ternary(matrix, sample, largest)
        or _grid(sample)
        or _three_levels_each(sample)
        or _dense(sample)
    )


def _three_levels(sample: Floats) -> Nearest | None:
    """At most three values in all, which are not -s, 0 and +s."""
    values = np.unique(sample)
    if len(values) > 3 or np.array_equal(values, -values[::-1]):
        return None
    return _describe_levels(values)


def _describe_levels(values: Floats) -> Nearest:
    if len(values) == 3:
        low, middle, high = values
        half = (high - low) / 2
        if abs(high - middle - half) <= _EXACT * half:
            return Nearest(f"ternary, shifted by {middle / half:.2g} s", _SHIFTED)
        if middle == 0:
            return Nearest(f"ternary, asymmetric: {low / -low:.3g}, 0 and {high / -low:.3g}", _SYMMETRIC)
    unit = np.abs(values).max()
    words = " and ".join(f"{value / unit:.3g}" for value in values)
    return Nearest(f"{len(values)} levels: {words}", _SYMMETRIC)


def _column_gain(sample: Floats) -> Nearest | None:
    """Ternary once every column is divided by a number of its own."""
    magnitude = np.abs(sample)
    gain = magnitude.max(axis=0)
    used = np.count_nonzero(magnitude, axis=0)
    off = (magnitude > 0) & (np.abs(magnitude - gain) > _EXACT * gain)
    if used.sum() < _EVIDENCE * np.count_nonzero(used) or off.any():
        return None
    if np.ptp(gain[used > 0]) <= _CLOSE * gain.max():
        return None  # one scale, and noise or outliers that the other rules tell of
    return Nearest("ternary, with a gain for each column", _GAIN)


def _almost_ternary(matrix: Matrix, sample: Floats, largest: float) -> Nearest | None:
    """Ternary but for noise, or for a few outliers; the sample is in units of its largest value."""
    magnitude = np.abs(sample)
    scale = float(np.median(magnitude[magnitude > 0]))
    if np.count_nonzero(_is_outlier(magnitude, scale)) > _FEW * np.count_nonzero(magnitude):
        return None
    count, nonzero, first, noise = 0, 0, matrix.shape, 0.0
    for rows, columns in matrix.tiles():
        with np.errstate(over="ignore"):  # an infinite outlier is one
            tile = np.abs(matrix.tile(rows, columns).astype(np.float64)) / largest
        outlier = _is_outlier(tile, scale)
        if outlier.any():
            row, column = np.argwhere(outlier)[0]
            first = min(first, (int(row) + (rows.start or 0), int(column) + (columns.start or 0)))
        count += int(np.count_nonzero(outlier))
        nonzero += int(np.count_nonzero(tile))
        inside = tile[~outlier & (tile > 0)]
        noise = max(noise, float(np.abs(inside / scale - 1).max(initial=0)))
    if count > _FEW * nonzero:
        return None
    if count:
        many = "one outlier" if count == 1 else f"{count} outliers, the first"
        return Nearest(f"ternary, with {many} at [{first[0]}, {first[1]}]", _OUTLIERS)
    if noise <= _ROUNDING:
        return Nearest("ternary")
    return Nearest(f"ternary, with noise of {noise:.1%} around its levels", _NOISE)


def _is_outlier(magnitude: Floats, scale: float) -> NDArray[np.bool_]:
    outlier: NDArray[np.bool_] = (magnitude > 0) & (np.abs(magnitude - scale) > _CLOSE * scale)
    return outlier


def _grid(sample: Floats) -> Nearest | None:
    """Multiples of one step for the tensor, each row, or each group of columns."""
    for scope, groups in _scopes(sample):
        largest = np.abs(groups).max(axis=1, keepdims=True)
        unit = groups / np.where(largest == 0, 1, largest)
        steps = np.zeros(len(unit))  # in the largest weight of each scale
        for most in _GRIDS:
            some = np.flatnonzero(steps == 0)
            some = some[_is_on_grid(unit[some, :64], most)]  # most weights are on none: look at a few first
            steps[some[_is_on_grid(unit[some], most)]] = most
        if steps.all():
            count = len(np.unique(np.rint(unit * steps[:, None])))
            return Nearest(f"{count} levels ({(count - 1).bit_length()} bits){scope}", _MORE_BITS)
    return None


def _is_on_grid(unit: Floats, most: int) -> NDArray[np.bool_]:
    """Of each row: whether all values, of which the largest is 1, are multiples of 1 / most."""
    steps = unit * most
    off: Floats = np.abs(steps - np.rint(steps)).max(axis=1)
    return off <= _ON_GRID


def _three_levels_each(sample: Floats) -> Nearest | None:
    """At most three values in each row or group, which are not -s, 0 and +s."""
    for scope, groups in _scopes(sample):
        ordered = np.sort(groups, axis=1)
        steps = np.diff(ordered, axis=1) > _EXACT * np.ptp(ordered, axis=1, keepdims=True)
        if scope and (steps.sum(axis=1) <= 2).all():
            return Nearest(f"three levels{scope}, not around zero", _SHIFTED)
    return None


def _scopes(sample: Floats) -> Iterator[tuple[str, Floats]]:
    """(words, [scales, weights of one scale]), coarse to fine, as far as there is evidence for a scale."""
    nonzero = np.count_nonzero(sample)
    sizes = (sample.size, sample.shape[1], *(g for g in _GROUPS if sample.shape[1] % g == 0))
    for size in dict.fromkeys(sizes):
        words = "row" if size == sample.shape[1] else f"{size} columns"
        if size == sample.size or nonzero >= _EVIDENCE * sample.size / size:
            scope = "" if size == sample.size else f" with a scale for each {words}"
            yield scope, sample.reshape(-1, size)


def _dense(sample: Floats) -> Nearest:
    """The root mean square of what the best ternary matrix with a scale for each row leaves."""
    mean = np.abs(sample).mean(axis=1, keepdims=True)
    codes = np.clip(np.rint(sample / np.where(mean == 0, 1, mean)), -1, 1)
    scale = (sample * codes).sum(axis=1, keepdims=True) / np.maximum(
        np.abs(codes).sum(axis=1, keepdims=True), 1
    )
    off = np.sqrt(np.square(sample - scale * codes).mean() / np.square(sample).mean())
    zeros = np.mean(sample == 0)
    words = f"dense, {zeros:.0%} zero" if zeros > _FEW else "dense"
    is_near = off <= _NEAR and zeros <= _SPARSE
    return Nearest(f"{words}, {off:.0%} off ternary", _TRAINED if is_near else "")
