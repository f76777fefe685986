"""The loops of `gemv_float`, the same for every instruction set that has a table in a register.

A lane is a row, as in `_dot`, and a code is not converted to a float: it selects one from a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcc.targets._dot import VECTOR_BYTES, VECTOR_COLUMNS
from bitcc.targets._matmul import walk_tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bitcc.targets._base import Tiles, Walk
    from bitcc.targets._tir import Pointer, Register, Tir

FLOAT_BYTES = 4


@dataclass(frozen=True)
class FloatBlock:
    """What one step of K reads: one vector of 16 columns of every tile.

    Attributes:
        x: Activations, float32.
        x_offset: Where those of the 16 columns start, in bytes.
        w: Packed weights.
        w_offsets: Where the vector of each tile starts, in bytes.
    """

    x: Pointer
    x_offset: Any
    w: Pointer
    w_offsets: Sequence[Any]

    def column(self, t: Tir, column: int, lanes: int) -> Any:
        """The activation of a column, in every lane."""
        offset = self.x_offset + column * FLOAT_BYTES
        return t.broadcast(self.x.load(offset, "float32"), lanes)


@dataclass(frozen=True)
class FloatDot:
    """How an instruction set multiplies codes by float activations.

    Attributes:
        lanes: Of a vector of 32 bits each.
        registers: Accumulators of one tile.
        step: Adds a block to the accumulators, by tile and by register.
        total: The accumulators of one tile to sums: float32 vectors that together are the 16 rows in order.
    """

    lanes: int
    registers: int
    step: Callable[[Tir, FloatBlock, Sequence[Sequence[Register]]], None]
    total: Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True)
class GemvFloat:
    """Writes `gemv_float`. A row is added up in the same order, whatever the tiles beside it."""

    dot: FloatDot

    def __call__(self, t: Tir, a: Any, tiles: Tiles) -> None:
        """Write the body."""
        _FloatLoops(t, a, self.dot).write(tiles.gemv_float)


class _FloatLoops:
    """The loop over tiles, inside it that over groups, and inside that the one over K."""

    def __init__(self, t: Tir, a: Any, dot: FloatDot) -> None:
        self._t, self._a, self._dot = t, a, dot
        self._begin = t.let(t.long(a.begin))
        self._k_blocks = t.let(t.long(a.k_blocks))
        self._group = t.let(t.long(a.group_vectors))

    def write(self, walk: Walk) -> None:
        """All tiles."""
        walk_tiles(self._t, self._begin, self._t.long(self._a.end), walk, self._tiles)

    def _tiles(self, first: Any, walk: Walk) -> None:
        """The tiles first .. first + walk.tiles - 1."""
        t = self._t
        starts = [t.let((first + tile) * self._k_blocks * VECTOR_BYTES) for tile in range(walk.tiles)]
        totals = [self._zeros(16 // self._dot.lanes) for _ in starts]
        with t.loop((self._k_blocks + self._group - 1) // self._group) as group:
            vector = t.let(group * self._group)
            sums = [self._zeros(self._dot.registers) for _ in starts]
            with t.loop(t.minimum(self._group, self._k_blocks - vector)) as i:
                self._step(starts, t.let(vector + i), walk.prefetch, sums)
            scales = t.let((group * t.long(self._a.scale_stride) + first * 16) * FLOAT_BYTES)
            for tile in range(walk.tiles):
                self._scale(t.let(scales + tile * 16 * FLOAT_BYTES), sums[tile], totals[tile])
        for tile in range(walk.tiles):
            offset = t.let((first - self._begin + tile) * 16 * FLOAT_BYTES)
            for part, total in enumerate(totals[tile]):
                self._a.acc.store(offset + part * self._dot.lanes * FLOAT_BYTES, total.get())

    def _zeros(self, count: int) -> list[Register]:
        return [self._t.register(self._t.floats(0, self._dot.lanes)) for _ in range(count)]

    def _step(
        self, starts: Sequence[Any], vector: Any, prefetch: int, sums: Sequence[Sequence[Register]]
    ) -> None:
        t = self._t
        offsets = [t.let(start + vector * VECTOR_BYTES) for start in starts]
        for offset in offsets if prefetch else ():
            self._a.w.prefetch(offset + prefetch)
        x_offset = t.let(vector * (VECTOR_COLUMNS * FLOAT_BYTES))
        self._dot.step(t, FloatBlock(self._a.x, x_offset, self._a.w, offsets), sums)

    def _scale(self, offset: Any, sums: Sequence[Register], totals: Sequence[Register]) -> None:
        """Add the sums of a group times its scales."""
        t, lanes = self._t, self._dot.lanes
        rows = self._dot.total([register.get() for register in sums])
        for part, (row, total) in enumerate(zip(rows, totals, strict=True)):
            scale = self._a.scale.load(offset + part * lanes * FLOAT_BYTES, f"float32x{lanes}")
            total.set(t.multiply_add(scale, row, total.get()))
