"""Find the levels of weights that went through a straight-through estimator in half precision.

``w + (q * s - w)`` is a multiple of the spacing of values around w: coarse where w is many times s. Most
weights are at their level, or beside it where it lies between two values; a few are far away; and zero codes
are exactly zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc.passes.levels import Levels, floats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from bitcc.passes.elementwise import Matrix

SPACING = {"float16": 2**-10, "bfloat16": 2**-8}
"""Of the values of a type, relative to them."""

_LEAST_AT_LEVEL = 0.75  # of the weights; without such a majority there is more than one level
_NOISE = 3e-2
_MOST_BEYOND = 0.01  # of the weights
_FARTHEST = 0.4


def half_scale(matrix: Matrix, scopes: Iterable[Levels]) -> NDArray[np.float32] | None:
    """The scales [1, 1], [N, 1] or [N, K / g] of the first scope that has one level in each group.

    Args:
        matrix: In half precision.
        scopes: Of the matrix, none with a magnitude between zero and half of the largest of its group.
    """
    spacing = SPACING[matrix.dtype.name]
    magnitude = np.empty(matrix.shape, np.float32)
    for rows, columns in matrix.tiles():
        magnitude[rows, columns] = np.abs(floats(matrix.tile(rows, columns)))
    for scope in scopes:
        number = scope.number.reshape(-1, 1)
        groups = magnitude.reshape(number.size, -1)
        scale = _medians(groups, number)
        away = np.abs(groups / scale - 1)[groups > 0]
        beyond = np.mean(away > _NOISE)
        if np.mean(away <= spacing) >= _LEAST_AT_LEVEL and beyond <= _MOST_BEYOND and away.max() <= _FARTHEST:
            return scale.reshape(scope.number.shape)
    return None


def _medians(groups: NDArray[np.float32], number: NDArray[Any]) -> NDArray[np.float32]:
    """Of the nonzero magnitudes of each group, ``number`` of them; one where there is none."""
    last = groups.shape[1] - 1
    ordered = np.sort(groups, axis=1)  # the nonzero ones are behind the others
    middle = np.minimum(last - (number - 1) // 2, last)
    return np.where(number == 0, np.float32(1), np.take_along_axis(ordered, middle, axis=1))
