"""Decide by value whether a matrix is ternary: codes in {-1, 0, 1} times a scale for tensor, row or group.

Trained weights that went through a straight-through estimator carry float noise around -s, 0 and +s; zero
codes are exactly zero in every dtype, and there are few distinct values: two independent tests which no
dense matrix passes. The tolerances were measured on third-party exports with heavy-tailed weights.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc.formats import PackedMatrix, t2
from bitcc.passes import half_noise
from bitcc.passes._refused import Refused
from bitcc.passes.extent import Extent, extent_of
from bitcc.passes.levels import (
    EVIDENCE,
    exact_scales,
    finest,
    sizes,
    stray_of_finest,
)
from bitcc.passes.magnitudes import HALVES, floats
from bitcc.passes.matrix import PACKED, Matrix
from bitcc.passes.steps import steps_of
from bitcc.passes.table import NO_CODE, CodeTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bitcc.formats import Int8, WeightFormat
    from bitcc.passes.elementwise import Elementwise

_MIN_SIDE = 4
_MIN_WEIGHTS = 64  # fewer values prove nothing
_TOLERANCE = 2e-6  # of values that differ by the rounding of float32 alone
_NOISE = 3e-2  # of a few distinct values around one level
_NOISE_DISTINCT = 16
_SAMPLE = slice(0, 16)  # rows of the content
_LEAST_SHARE = 0.75  # of the level among them: two scales that lie close together are no noise


@dataclass(frozen=True)
class Ternary:
    """An exact ternary matrix.

    Attributes:
        codes: [N, K], packed.
        scale: float32 [1, 1] (scope ``tensor``), [N, 1] (``row``) or [N, K / group_size], positive.
        group_size: Columns of one scale; K for the scopes ``tensor`` and ``row``.
        noisy: Whether the values stray further from the levels than float32 explains, as those of a
            quantizer that was evaluated in half precision.
    """

    codes: PackedMatrix
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
        return self.counts[1] / sum(self.counts)

    @property
    def positive(self) -> float:
        """The fraction of codes 1."""
        return self.counts[2] / sum(self.counts)

    @cached_property
    def counts(self) -> tuple[int, int, int]:
        """How many codes are -1, 0 and 1."""
        negative, positive = self.codes.fmt.counts(self.codes.data)
        return negative, math.prod(self.codes.shape) - negative - positive, positive

    @property
    def scheme(self) -> str:
        """``binary`` if no weight is zero, else ``ternary``."""
        return "ternary" if self.zeros else "binary"


def to_ternary(matrix: Matrix | NDArray[Any], fmt: WeightFormat = t2.FORMAT) -> Ternary:
    """[N, K] float or integer values -> exact codes and their scale, at the coarsest scope that fits.

    Args:
        matrix: The values.
        fmt: Of the codes.

    Raises:
        Refused: the values are not ternary; the reason says which rule failed.
    """
    if not isinstance(matrix, Matrix):
        matrix = Matrix.of(matrix)
    n, k = matrix.shape
    if min(n, k) < _MIN_SIDE or n * k < _MIN_WEIGHTS:
        raise Refused(f"[N, K] = [{n}, {k}] is too small to be told from any other constant")
    sample = np.abs(floats(matrix.tile(*matrix.place(_SAMPLE))))
    largest = sample.max()
    if np.isfinite(largest) and largest > 0:
        if _has_more_levels(sample, finest(matrix)):
            raise _dense()  # most dense matrices end here
        if (codes := _codes_of_one_level(matrix, largest, fmt)) is not None:
            return Ternary(codes, np.full((1, 1), largest, np.float32), k)
    codes = PackedMatrix.empty(fmt, matrix.shape)
    extent = extent_of(matrix, codes)
    if extent.is_one_level(_TOLERANCE):
        return Ternary(codes, _full(_sample_mode(matrix)), k)
    scale, group_size, noisy = _scale(matrix, extent)
    return Ternary(codes, scale, group_size, noisy)


def _has_more_levels(block: NDArray[Any], size: int) -> bool:
    """Whether a magnitude in the first columns lies between zero and half of the largest of its group.

    Args:
        block: All columns of some rows, or the first ones of all.
        size: Columns of a group.
    """
    columns = block.shape[1]
    groups = block.reshape(-1, columns if size > columns else math.gcd(size, columns))
    half = groups.max(axis=1, keepdims=True) / 2
    return bool(((groups > 0) & (groups <= half)).any())


def _codes_of_one_level(matrix: Matrix, level: float, fmt: WeightFormat) -> PackedMatrix | None:
    """The codes [N, K] if every value is -level, 0 or +level, to the last bit; else None."""
    content, codes = matrix.content, PackedMatrix.empty(fmt, matrix.shape)
    read = _reader(content, level)
    for rows in matrix.blocks(fmt, most=PACKED):
        block = np.empty((rows.stop - rows.start, content.shape[1]), np.int8)
        if not read(rows, block):
            return None
        codes.write(*matrix.place(rows), matrix.as_content(block))
    return codes


def _reader(content: Elementwise, level: float) -> Callable[[slice, Int8], bool]:
    """What fills an array with the codes of some rows; False if a value is not -level, 0 or +level.

    The fastest way there is: codes as a function of bits, as a function of float32 numbers, and as that of
    every value.
    """
    if (table := content.table) is not None:
        known = CodeTable(_code_table(floats(table.values), level))
        return lambda rows, out: known.read(table.patterns[rows], out, table.largest(rows))
    if (found := steps_of(content, lambda values: _code_table(floats(values), level))) is not None:
        numbers, steps = found
        return lambda rows, out: steps.read(numbers[rows], out)

    def read(rows: slice, out: Int8) -> bool:
        for some in content.block_rows(of=rows):
            here = out[some.start - rows.start : some.stop - rows.start]
            if not _read_codes(content.rows(some), level, here):
                return False
        return True

    return read


def _code_table(values: NDArray[Any], level: float) -> Int8:
    """The code of each value, ``NO_CODE`` for those that have none."""
    codes = np.full(values.shape, NO_CODE, np.int8)
    for code in (-1, 0, 1):
        codes[values == code * level] = code
    return codes


def _read_codes(values: NDArray[Any], level: Any, out: Int8) -> bool:
    """Fill ``out`` with the codes of values; False if one is not -level, 0 or +level, to the last bit."""
    level = np.asarray(level, values.dtype)
    above, below, zero = values == level, values == -level, values == 0
    np.subtract(above.view(np.int8), below.view(np.int8), out=out)
    return sum(map(np.count_nonzero, (above, below, zero))) == values.size


def _dense(away: str = "") -> Refused:
    return Refused(f"the weights are dense: no scale makes them -1, 0 and 1{away}")


def _scale(matrix: Matrix, extent: Extent) -> tuple[NDArray[np.float32], int, bool]:
    """(scale [1, 1], [N, 1] or [N, K / g], group size, noisy): exact ones first, even if they are finer.

    Only the noise that a few large weights have in float32 comes before: it leaves most groups exact.
    """
    k = matrix.shape[1]
    if not np.isfinite(extent.largest):
        raise Refused("the weights hold NaN or infinity", fix="check the weights before the export")
    if not extent.number:
        raise Refused("the weights are all zero", fix="check that the weights were loaded before the export")
    if extent.stray() <= half_noise.FINE:
        with suppress(Refused):
            if (scale := _noisy_scale(matrix, extent)) is not None:
                return scale, k // scale.shape[1], True
    scale = exact_scales(matrix, extent, _TOLERANCE)
    if (scale is None or scale.shape[1] > 1) and matrix.dtype.name not in HALVES:
        rows = half_noise.scales(matrix, k)
        if rows is not None:
            return rows, k, True
    if scale is not None:
        return scale, k // scale.shape[1], False
    scale = _noisy_scale(matrix, extent)
    if scale is not None:
        return scale, k // scale.shape[1], True
    stray = stray_of_finest(matrix)
    raise _dense("" if stray is None or stray >= 1 else f"; values are {stray:.2g} s away")


def _full(scale: float) -> NDArray[np.float32]:
    return np.full((1, 1), scale, np.float32)


def _noisy_scale(matrix: Matrix, extent: Extent) -> NDArray[np.float32] | None:
    """The level of all weights under noise, or in half precision the levels of any scope.

    Raises:
        Refused: there is one level, and what is around it no rounding leaves.
    """
    is_evident = not extent.has_more() and extent.number >= EVIDENCE
    if matrix.dtype.name in HALVES:
        scale = half_noise.scale_of_all(matrix, extent) if is_evident else None
        finer = (half_noise.scales(matrix, size) for size in sizes(matrix))
        return scale if scale is not None else next((found for found in finer if found is not None), None)
    if not is_evident or extent.stray() > _NOISE:
        return None
    counts = _magnitude_counts(matrix)
    if counts is None:
        return None
    (mode, count), *_ = counts.most_common(1)
    if len(counts) > counts.total() / EVIDENCE or count < _LEAST_SHARE * counts.total():
        return None
    if not half_noise.is_rounding(counts, mode, math.prod(matrix.shape)):
        away = max(abs(value / mode - 1) for value in counts)
        raise Refused(
            f"some of its weights are up to {away:.2g} of the scale away from -1, 0 and 1 times it, which "
            "rounding does not explain",
            fix="export it with its weight quantizer in the graph, or round the weights to their levels",
        )
    return _full(mode)


def _sample_mode(matrix: Matrix) -> float:
    """The most frequent magnitude among the first ones."""
    for rows, columns in matrix.tiles():
        values, counts = np.unique(_magnitudes(matrix, rows, columns), return_counts=True)
        if values.size:
            return float(values[counts.argmax()])
    raise AssertionError  # the caller knows of a nonzero value


def _magnitude_counts(matrix: Matrix) -> Counter[float] | None:
    """How often each nonzero magnitude occurs; None if there are many."""
    counts: Counter[float] = Counter()
    for rows, columns in matrix.tiles():
        values = _magnitudes(matrix, rows, columns)
        for known in list(counts):
            values = _counted(values, known, counts)
        while values.size:
            if len(counts) >= _NOISE_DISTINCT:
                return None
            values = _counted(values, float(values[0]), counts)
    return counts


def _counted(values: NDArray[Any], value: float, counts: Counter[float]) -> NDArray[Any]:
    """The other values, after this one has been counted."""
    others: NDArray[Any] = values[values != value]
    counts[value] += values.size - others.size
    return others


def _magnitudes(matrix: Matrix, rows: slice, columns: slice) -> NDArray[Any]:
    """The nonzero ones of a tile, in one row."""
    values = np.abs(floats(matrix.tile(rows, columns)))
    nonzero: NDArray[Any] = values[values > 0]
    return nonzero
