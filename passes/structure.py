"""Tell trained ternary matrices from what is ternary by construction: selections, masks, transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitcc.passes._refused import Refused

if TYPE_CHECKING:
    from bitcc.formats import Int8, PackedMatrix
    from bitcc.passes.ternary import Ternary

_MAX_ZEROS = 0.95
_ROWS = 64
_TRAINED = "if it was trained, export it with its activation quantizer in the graph, which proves it"


def check_structure(ternary: Ternary) -> None:
    """Tell a trained matrix from a selection, a mask or a transform, for layers that nothing else proves.

    Raises:
        Refused: the matrix is one of those; packing would be lossless, but it is no BitLinear.
    """
    if ternary.zeros > _MAX_ZEROS:
        raise Refused(
            f"{ternary.zeros:.0%} of the weights are zero: a selection or mask, not a BitLinear", fix=_TRAINED
        )
    negative, _, positive = ternary.counts
    if not negative or not positive:
        raise Refused("all nonzero weights have one sign: a mask, not a BitLinear", fix=_TRAINED)
    if _has_constant_diagonals(ternary.codes):
        raise Refused(
            "its diagonals are constant: a difference or shift matrix, not a BitLinear", fix=_TRAINED
        )
    some = slice(0, _ROWS)
    if _orthogonal(ternary.codes.read(rows=some)) or _orthogonal(ternary.codes.read(columns=some).T):
        raise Refused(
            "its rows are orthogonal to each other: a Hadamard or permutation matrix, not a BitLinear",
            fix=_TRAINED,
        )


def _has_constant_diagonals(codes: PackedMatrix) -> bool:
    """Whether every row is the one above it moved by one column."""
    starts = range(0, codes.shape[0] - 1, _ROWS)
    blocks = (codes.read(slice(i, i + _ROWS + 1)) for i in starts)  # the first one mostly says no
    return all(np.array_equal(block[1:, 1:], block[:-1, :-1]) for block in blocks)


def _orthogonal(codes: Int8) -> bool:
    """Whether all rows are to each other."""
    some = codes.astype(np.float32)
    gram = some @ some.T
    np.fill_diagonal(gram, 0)
    return not gram.any()
