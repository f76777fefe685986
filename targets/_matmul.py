"""The loops of `gemv` and `gemm`, the same for every instruction set.

Layout `t2`: byte 4*n + kk of a 64-byte vector holds, in bits 2i..2i+1, the code of row n and of
column 4*i + kk. So the four bytes of a 32-bit lane are four columns of one row, the lane is the row, and
nothing is ever added across lanes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bitcc.targets._base import Tiles, Walk
    from bitcc.targets._tir import Pointer, Register, Tir

    # by token, by tile of the walk, by register of the dot
    Accumulators = Sequence[Sequence[Sequence[Register]]]

VECTOR_BYTES = 64
VECTOR_COLUMNS = 16
_ROW_BYTES = 64  # 16 int32 of the result


@dataclass(frozen=True)
class Block:
    """What one step of K reads: `Dot.vectors` vectors of every tile.

    Attributes:
        q: Activations, int8.
        q_offsets: Where the activations of each token start, in bytes.
        w: Packed weights.
        w_offsets: Where the vectors of each tile start, in bytes.
    """

    q: Pointer
    q_offsets: Sequence[Any]
    w: Pointer
    w_offsets: Sequence[Any]


@dataclass(frozen=True)
class Dot:
    """How an instruction set multiplies codes by activations.

    Attributes:
        vectors: Vectors of 16 columns that `step` takes from each tile: 1, 2 or 4.
        registers: Types of the accumulators of one token and one tile.
        step: Adds a block to the accumulators.
        total: The accumulators of one token and one tile to sums of c * q: int32 vectors that
            together are the 16 rows in order.
    """

    vectors: int
    registers: tuple[str, ...]
    step: Callable[[Tir, Block, Accumulators], None]
    total: Callable[[Tir, Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True)
class Gemv:
    """Writes `gemv`: one token, and as many streams from memory as the CPU likes."""

    dot: Dot

    def __call__(self, t: Tir, a: Any, tiles: Tiles) -> None:
        """Write the body."""
        _check(self.dot, tiles.gemv)
        _Loops(t, a, self.dot, [a.sum]).write(tiles.gemv)


@dataclass(frozen=True)
class Gemm:
    """Writes `gemm`: `Tiles.gemm_tokens` tokens, for which `dot` unpacks the codes once."""

    dot: Dot

    def __call__(self, t: Tir, a: Any, tiles: Tiles) -> None:
        """Write the body."""
        _check(self.dot, tiles.gemm)
        sums = [t.let(a.sums.load(4 * m, "int32")) for m in range(tiles.gemm_tokens)]
        _Loops(t, a, self.dot, sums).write(tiles.gemm)


def _check(dot: Dot, walk: Walk) -> None:
    """K is a multiple of four vectors, and the loop over it has no remainder.

    Raises:
        ValueError: the walk takes a number of vectors that does not divide four.
    """
    if 4 % (dot.vectors * walk.unroll):
        raise ValueError(f"{walk} with steps of {dot.vectors} vectors does not divide 4 vectors")


def walk_tiles(t: Tir, begin: Any, end: Any, walk: Walk, body: Callable[[Any, Walk], None]) -> None:
    """Write the loop over tiles: `walk.tiles` at once, then the rest one by one.

    Args:
        t: Writes it.
        begin: The first tile, in 64 bits.
        end: The one after the last.
        walk: How many at once.
        body: Writes what is done with the tiles of a walk, given the first of them.
    """
    groups = t.let((end - begin) // walk.tiles)
    with t.loop(groups) as group:
        body(t.let(begin + group * walk.tiles), walk)
    if walk.tiles > 1:
        done = t.let(begin + groups * walk.tiles)
        with t.loop(end - done) as rest:
            body(t.let(done + rest), replace(walk, tiles=1))


class _Loops:
    """The loop over tiles, and inside it the loop over K."""

    def __init__(self, t: Tir, a: Any, dot: Dot, sums: Sequence[Any]) -> None:
        self._t, self._a, self._dot, self._sums = t, a, dot, sums
        self._begin = t.let(t.long(a.begin))
        self._q_bytes = t.let(t.long(a.k_blocks) * VECTOR_COLUMNS)
        self._tile_bytes = t.let(t.long(a.k_blocks) * VECTOR_BYTES)

    def write(self, walk: Walk) -> None:
        """All tiles."""
        walk_tiles(self._t, self._begin, self._t.long(self._a.end), walk, self._tiles)

    def _tiles(self, first: Any, walk: Walk) -> None:
        """The tiles first .. first + walk.tiles - 1, for all tokens."""
        t, dot = self._t, self._dot
        starts = [t.let((first + tile) * self._tile_bytes) for tile in range(walk.tiles)]
        accumulators = [
            [[t.register(t.constant(0, dtype)) for dtype in dot.registers] for _ in starts]
            for _ in self._sums
        ]
        vectors = dot.vectors * walk.unroll
        with t.loop(t.long(self._a.k_blocks) // vectors) as step:
            for part in range(walk.unroll):
                vector = t.let(step * vectors + part * dot.vectors)
                dot.step(t, self._block(starts, vector, walk.prefetch), accumulators)
        for tile in range(walk.tiles):
            for token in range(len(self._sums)):
                self._store(first + tile, token, accumulators[token][tile])

    def _block(self, starts: Sequence[Any], vector: Any, prefetch: int) -> Block:
        """The operands from `vector` on."""
        t = self._t
        offsets = [t.let(start + vector * VECTOR_BYTES) for start in starts]
        for offset in offsets if prefetch else ():
            for ahead in range(self._dot.vectors):
                self._a.w.prefetch(offset + (prefetch + ahead * VECTOR_BYTES))
        tokens = range(len(self._sums))
        return Block(
            q=self._a.q,
            q_offsets=[t.let(self._q_bytes * m + vector * VECTOR_COLUMNS) for m in tokens],
            w=self._a.w,
            w_offsets=offsets,
        )

    def _store(self, tile: Any, token: int, registers: Sequence[Register]) -> None:
        """Weights are codes - 1: take the sum of the activations off and write 16 rows."""
        t = self._t
        offset = t.let(((tile - self._begin) * len(self._sums) + token) * _ROW_BYTES)
        rows = self._dot.total(t, [register.get() for register in registers])
        lanes = 16 // len(rows)
        for part, row in enumerate(rows):
            value = row - t.broadcast(self._sums[token], lanes)
            self._a.acc.store(offset + part * lanes * 4, value)
