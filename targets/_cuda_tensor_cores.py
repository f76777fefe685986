"""What a warp does with tensor cores: weights unpacked in registers, as they lie in memory.

A thread loads 16 bytes of weights, which are four rows of one vector, and its warp 32 rows (two tiles) and
64 columns (four vectors). Tensor cores add over K, so that columns may come in any order that both operands
have, and rows may be any rows. So what a thread has loaded is its own share of the operands, and nothing is
exchanged: crumbs 0 and 1 are the columns of one multiplication, crumbs 2 and 3 those of the next one; words
0 and 1 are two rows of one, words 2 and 3 of another. Its share of the activations is 16 bytes of one
token: the same 16 columns.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from bitcc.targets._cuda_gemv import CODES, QUADS, TILE_ROWS
from bitcc.targets._cuda_tir import QUAD, WARP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bitcc.targets._cuda_finish import Finish
    from bitcc.targets._cuda_tir import Cuda, Quad

WARP_TILES = 2
WARP_ROWS = WARP_TILES * TILE_ROWS
GROUP = 8  # tokens of one multiplication
VECTORS = 4  # of a step: one for each thread of four that have the same rows, or the same token
_MULTIPLIED_ROWS = 16
_SUMS = 4  # of a thread in one multiplication


class Place:
    """Which part of a multiplication this thread has.

    Attributes:
        group: The token, or the row, that it brings; 0 .. 7.
        part: The vector of a step; 0 .. 3.
        tile: That of the rows it brings; 0 or 1.
        quad: And which of them; 0 .. 3.
    """

    def __init__(self, t: Cuda, lane: Any = None) -> None:
        lane = t.let(t.thread % WARP if lane is None else lane)
        self.group, self.part = t.let(lane // VECTORS), t.let(lane % VECTORS)
        self.tile, self.quad = t.let(self.group // QUADS), t.let(self.group % QUADS)

    def weights(self, t: Cuda, a: Any, share: Any, step: Any) -> Any:
        """The address of four rows and 16 columns in a share of 32 rows; in the last tile beyond it."""
        tile = t.let(t.minimum(share * WARP_TILES + self.tile, a.tiles - 1))
        vector = t.long(tile) * t.long(a.k_blocks) + t.long(step * VECTORS + self.part)
        return a.w.address(vector * TILE_ROWS + t.long(self.quad * QUAD))


def codes_address(t: Cuda, a: Any, token: Any, vector: Any) -> Any:
    """Of 16 columns of a token."""
    return a.q.address((t.long(token) * t.long(a.k_blocks) + t.long(vector)) * QUAD)


class Sums:
    """The accumulators of a thread: by 32 rows, group of tokens, half of the rows, and four numbers."""

    _HALVES = range(WARP_ROWS // _MULTIPLIED_ROWS)

    def __init__(self, t: Cuda, groups: int, sets: int = 1) -> None:
        self._groups, self._sets = range(groups), range(sets)
        self._array = t.registers(sets * groups * len(self._HALVES) * _SUMS, "int32")

    def add(self, t: Cuda, words: Sequence[Any], activations: Sequence[Quad], rows: int = 0) -> None:
        """Multiply 64 columns of all rows of a set and of all groups of tokens."""
        for pair, half in itertools.product(range(2), self._HALVES):  # a pair of crumbs is 8 columns
            fragments = [
                t.let(t.mask(t.shift_right(word, 2 * crumb), CODES))
                for crumb in (2 * pair, 2 * pair + 1)
                for word in words[2 * half : 2 * half + 2]
            ]
            for group, q in zip(self._groups, activations, strict=True):
                sums = self._array.address(self._at(group, half, rows))
                t.run("bitcc_mma", sums, *fragments, *q[2 * pair : 2 * pair + 2])

    def each(self, place: Place, use: Callable[[Any, Any, Any], None]) -> None:
        """Call `use` with the row and the token, both in the warp's share, and their sum."""
        for group, i in itertools.product(self._groups, range(2)):
            row, token = place.tile * TILE_ROWS + place.quad * QUAD, place.part * 2 + (group * GROUP + i)
            for further, value in enumerate(self._rows(group, i)):
                use(row + further, token, value)

    def finish(
        self, t: Cuda, a: Any, place: Place, finish: Finish, *, first_row: Any, first_token: Any
    ) -> None:
        """Write them: four rows of a token at once."""
        for rows in self._sets:
            row = t.let(first_row + rows * WARP_ROWS + place.tile * TILE_ROWS + place.quad * QUAD)
            tokens = [
                (first_token + place.part * 2 + (group * GROUP + i), self._rows(group, i, rows))
                for group, i in itertools.product(self._groups, range(2))
            ]
            finish.quads(t, a, row=row, tokens=tokens)

    def _rows(self, group: int, i: int, rows: int = 0) -> list[Any]:
        """The sums of four rows of a token."""
        return [
            self._array.load(self._at(group, half, rows) + 2 * row + i)
            for half in self._HALVES
            for row in range(2)
        ]

    def _at(self, group: int, half: int, rows: int) -> int:
        return ((rows * len(self._groups) + group) * len(self._HALVES) + half) * _SUMS
