"""`gemv` for CUDA: one token, weights as they lie in memory, four products an instruction.

A block takes two tiles of 16 rows, and its threads share K. In a vector of 64 bytes a thread has 16, which
are four rows: each word holds 16 columns of one row, and crumb i of its four bytes the columns 4*i .. 4*i +
3. All loads of a round are under way before the first of them is used; activations come through shared
memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcc.targets._cuda_tir import QUAD, WARP

if TYPE_CHECKING:
    from bitcc.targets._cuda_finish import Finish
    from bitcc.targets._cuda_tir import Array, Cuda, Quad

CODES = 0x03030303  # the lowest code of each byte
QUADS = 4  # in a vector
TILE_ROWS = 16


@dataclass(frozen=True)
class Gemv:
    """Writes `gemv`.

    Attributes:
        tiles: Of a block.
        warps: Of a block.
        steps: Vectors that a thread loads from each tile in a round.
        finish: Writes Y.
    """

    tiles: int
    warps: int
    steps: int
    finish: Finish

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.warps * WARP

    def __call__(self, t: Cuda, a: Any) -> None:
        """Write the body."""
        stride = self.threads // QUADS  # vectors that the block loads at once
        quad = t.let(t.thread % QUADS)
        first = t.let(t.thread // QUADS)
        totals = t.registers(self.tiles * QUAD, "int32")
        staged = t.shared(self.steps * stride * QUAD, "int32")
        with t.loop((a.k_blocks + (self.steps * stride - 1)) // (self.steps * stride)) as i:
            start = t.let(i * (self.steps * stride))
            weights = self._load(t, a, t.let(start + first), quad)
            self._stage(t, a, start, staged)
            for step, words in enumerate(weights):
                q = staged.load_quad((first + step * stride) * QUAD)
                for tile, word in enumerate(words):
                    self._multiply(t, totals, tile, word, q)
            t.barrier()  # the next round overwrites `staged`
        self._write(t, a, totals)

    def _load(self, t: Cuda, a: Any, first: Any, quad: Any) -> list[list[Quad]]:
        """By step and tile, 16 bytes of weights; zeros beyond the last vector."""
        weights = []
        for step in range(self.steps):
            vector = t.let(first + step * (self.threads // QUADS))
            words = []
            for tile in range(self.tiles):
                number = t.let(t.block * self.tiles + tile)
                there = (vector < a.k_blocks) & (number < a.tiles)
                offset = (t.long(number) * t.long(a.k_blocks) + t.long(vector)) * TILE_ROWS
                address = a.w.address(offset + t.long(quad * QUAD))
                words.append(t.fetch("bitcc_load_weights", address, there))
            weights.append(words)
        return weights

    def _stage(self, t: Cuda, a: Any, start: Any, staged: Array) -> None:
        """The activations of a round to shared memory."""
        for part in range(self.steps // QUADS):
            here = t.let(t.thread + part * self.threads)
            vector = t.let(start + here)
            q = t.fetch("bitcc_load_codes", a.q.address(vector * QUAD), vector < a.k_blocks)
            staged.store_quad(here * QUAD, q)
        t.barrier()

    def _multiply(self, t: Cuda, totals: Array, tile: int, words: Quad, q: Quad) -> None:
        """Four rows by 16 columns."""
        for row, word in enumerate(words):
            total = totals.load(tile * QUAD + row)
            for crumb, columns in enumerate(q):
                codes = t.mask(t.shift_right(word, 2 * crumb), CODES)
                total = t.call("int32", "__dp4a", codes, columns, total)
            totals.store(tile * QUAD + row, total)

    def _write(self, t: Cuda, a: Any, totals: Array) -> None:
        """Add up the threads that have the same rows, first in a warp and then over the warps."""
        rows = self.tiles * TILE_ROWS
        partial = t.shared(self.warps * rows, "int32")
        lane, warp = t.let(t.thread % WARP), t.let(t.thread // WARP)
        for tile in range(self.tiles):
            for row in range(QUAD):
                total = t.let(totals.load(tile * QUAD + row))
                for distance in (16, 8, 4):
                    total = t.let(total + t.exchange("int32", total, distance))
                with t.when(lane < QUADS):
                    partial.store(warp * rows + tile * TILE_ROWS + lane * QUAD + row, total)
        t.barrier()
        with t.when(t.thread < rows):
            total = partial.load(t.thread)
            for other in range(1, self.warps):
                total = total + partial.load(t.thread + other * rows)
            row = t.let(t.block * rows + t.thread)
            self.finish(t, a, token=t.constant(0, "int32"), row=row, sum_of_codes=t.let(total))
