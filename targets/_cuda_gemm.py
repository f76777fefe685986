"""`gemm_few` and `gemm` for CUDA: tensor cores, weights unpacked in registers.

A thread loads 16 bytes of weights, which are four rows of one vector, and its warp 32 rows (two tiles) and
64 columns (four vectors). Tensor cores add over K, so that columns may come in any order that both operands
have, and rows may be any rows. So what a thread has loaded is its own share of the operands, and nothing is
exchanged: crumbs 0 and 1 are the columns of one multiplication, crumbs 2 and 3 those of the next one; words
0 and 1 are two rows of one, words 2 and 3 of another. Its share of the activations is 16 bytes of one
token: the same 16 columns.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcc.targets._cuda_gemv import CODES, QUAD, QUADS, TILE_ROWS
from bitcc.targets._cuda_tir import WARP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bitcc.targets._cuda_finish import Finish
    from bitcc.targets._cuda_tir import Array, Cuda, Quad

WARP_TILES = 2
WARP_ROWS = WARP_TILES * TILE_ROWS
GROUP = 8  # tokens of one multiplication
VECTORS = 4  # of a step: one for each thread of four that have the same rows, or the same token
_MULTIPLIED_ROWS = 16
_SUMS = 4  # of a thread in one multiplication


@dataclass(frozen=True)
class GemmFew:
    """Writes `gemm_few`: a block takes 32 rows and 8 tokens, and its warps share K.

    Attributes:
        warps: Of a block.
        unroll: Steps of K that a warp loads while it multiplies as many.
        finish: Writes Y.
    """

    warps: int
    unroll: int
    finish: Finish

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.warps * WARP

    def __call__(self, t: Cuda, a: Any) -> None:
        """Write the body."""
        place = _Place(t)
        warp = t.let(t.thread // WARP)
        sums = _Sums(t, groups=1)
        token = t.let(t.minimum(t.block_y * GROUP + place.group, a.tokens - 1))
        steps = t.let(a.k_blocks // VECTORS)

        def load(turn: Any) -> list[tuple[Quad, Quad]]:
            """The operands of each step of a turn."""
            numbers = [t.let((turn * self.unroll + i) * self.warps + warp) for i in range(self.unroll)]
            weights = [place.weights(t, a, t.block, step, step < steps) for step in numbers]
            codes = [place.codes(t, a, token, step, step < steps) for step in numbers]
            return list(zip(weights, codes, strict=True))

        held = t.registers(2 * QUAD * self.unroll, "int32")
        _copy(held, itertools.chain(*itertools.chain(*load(t.constant(0, "int32")))))
        with t.loop((steps + (self.warps * self.unroll - 1)) // (self.warps * self.unroll)) as turn:
            following = load(turn + 1)
            for i in range(self.unroll):
                both = [held.load(2 * QUAD * i + word) for word in range(2 * QUAD)]
                sums.add(t, both[:QUAD], [tuple(both[QUAD:])])
            _copy(held, itertools.chain(*itertools.chain(*following)))
        self._write(t, a, place, sums, warp)

    def _write(self, t: Cuda, a: Any, place: _Place, sums: _Sums, warp: Any) -> None:
        """Add up the warps, in their order."""
        partial = t.shared(self.warps * GROUP * WARP_ROWS, "int32")

        def keep(row: Any, token: Any, value: Any) -> None:
            partial.store((warp * GROUP + token) * WARP_ROWS + row, value)

        sums.each(place, keep)
        t.barrier()
        with t.strided(t.thread, t.constant(GROUP * WARP_ROWS, "int32"), self.threads) as i:
            total = partial.load(i)
            for other in range(1, self.warps):
                total = total + partial.load(i + other * GROUP * WARP_ROWS)
            row, token = t.block * WARP_ROWS + i % WARP_ROWS, t.block_y * GROUP + i // WARP_ROWS
            self.finish(t, a, token=t.let(token), row=t.let(row), sum_of_codes=t.let(total))


@dataclass(frozen=True)
class Gemm:
    """Writes `gemm`: each warp takes rows of its own, and all of them the same tokens.

    These come through shared memory, which has two buffers: one is written while the other is read.

    Attributes:
        warps: Of a block.
        groups: Of eight tokens, in a block.
        finish: Writes Y.
    """

    warps: int
    groups: int
    finish: Finish

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.warps * WARP

    def __call__(self, t: Cuda, a: Any) -> None:
        """Write the body."""
        place = _Place(t)
        sums = _Sums(t, self.groups)
        size = self.groups * GROUP * VECTORS * QUAD  # words of one buffer
        staged = t.shared(2 * size, "int32")
        first = t.let(t.block * self.warps + t.thread // WARP)
        steps = t.let(a.k_blocks // VECTORS)
        words = t.registers(QUAD, "int32")
        _copy(words, place.weights(t, a, first, t.constant(0, "int32")))
        for here, q in self._activations(t, a, t.constant(0, "int32")):
            staged.store_quad(here, q)
        t.barrier()
        with t.loop(steps) as step:
            further = t.let(t.minimum(step + 1, steps - 1))
            next_words, next_q = place.weights(t, a, first, further), self._activations(t, a, further)
            now, then = t.let((step % 2) * size), t.let(((step + 1) % 2) * size)
            own = t.let(now + (place.group * VECTORS + place.part) * QUAD)
            offsets = [own + group * GROUP * VECTORS * QUAD for group in range(self.groups)]
            sums.add(t, [words.load(i) for i in range(QUAD)], map(staged.load_quad, offsets))
            _copy(words, next_words)
            for here, q in next_q:
                staged.store_quad(then + here, q)
            t.barrier()

        def write(row: Any, token: Any, value: Any) -> None:
            token = t.let(t.block_y * (self.groups * GROUP) + token)
            self.finish(t, a, token=token, row=t.let(first * WARP_ROWS + row), sum_of_codes=t.let(value))

        sums.each(place, write)

    def _activations(self, t: Cuda, a: Any, step: Any) -> Sequence[tuple[Any, Quad]]:
        """What this thread loads for the block: where in the buffer it goes, and 16 bytes."""
        loads = []
        for part in range(self.groups * GROUP * VECTORS // self.threads):
            here = t.let(t.thread + part * self.threads)
            token = t.minimum(t.block_y * (self.groups * GROUP) + here // VECTORS, a.tokens - 1)
            loads.append((t.let(here * QUAD), _load_codes(t, a, token, step * VECTORS + here % VECTORS)))
        return loads


def _copy(registers: Array, values: Iterable[Any]) -> None:
    for i, value in enumerate(values):
        registers.store(i, value)


class _Place:
    """Which part of a multiplication this thread has.

    Attributes:
        group: The token, or the row, that it brings; 0 .. 7.
        part: The vector of a step; 0 .. 3.
        tile: That of the rows it brings; 0 or 1.
        quad: And which of them; 0 .. 3.
    """

    def __init__(self, t: Cuda) -> None:
        lane = t.let(t.thread % WARP)
        self.group, self.part = t.let(lane // VECTORS), t.let(lane % VECTORS)
        self.tile, self.quad = t.let(self.group // QUADS), t.let(self.group % QUADS)

    def weights(self, t: Cuda, a: Any, warp: Any, step: Any, there: Any = 1) -> Quad:
        """Four rows of 16 columns, of the last tile where there are no more; or zeros."""
        tile = t.let(t.minimum(warp * WARP_TILES + self.tile, a.tiles - 1))
        vector = t.long(tile) * t.long(a.k_blocks) + t.long(step * VECTORS + self.part)
        address = a.w.address(vector * TILE_ROWS + t.long(self.quad * QUAD))
        return t.fetch("bitcc_load_weights", address, there)

    def codes(self, t: Cuda, a: Any, token: Any, step: Any, there: Any) -> Quad:
        """16 columns of a token; or zeros."""
        return _load_codes(t, a, token, step * VECTORS + self.part, there)


def _load_codes(t: Cuda, a: Any, token: Any, vector: Any, there: Any = 1) -> Quad:
    address = a.q.address((t.long(token) * t.long(a.k_blocks) + t.long(vector)) * QUAD)
    return t.fetch("bitcc_load_codes", address, there)


class _Sums:
    """The accumulators of a thread: by group of tokens, by half of the rows, and four numbers."""

    _HALVES = range(WARP_ROWS // _MULTIPLIED_ROWS)

    def __init__(self, t: Cuda, groups: int) -> None:
        self._groups = range(groups)
        self._array = t.registers(groups * len(self._HALVES) * _SUMS, "int32")

    def add(self, t: Cuda, words: Sequence[Any], activations: Iterable[Quad]) -> None:
        """Multiply 64 columns of all rows and of all groups of tokens."""
        quads = list(activations)
        for pair, half in itertools.product(range(2), self._HALVES):  # a pair of crumbs is 8 columns
            fragments = [
                t.let(t.mask(t.shift_right(word, 2 * crumb), CODES))
                for crumb in (2 * pair, 2 * pair + 1)
                for word in words[2 * half : 2 * half + 2]
            ]
            for group, q in zip(self._groups, quads, strict=True):
                sums = self._array.address(self._at(group, half))
                t.run("bitcc_mma", sums, *fragments, *q[2 * pair : 2 * pair + 2])

    def each(self, place: _Place, use: Callable[[Any, Any, Any], None]) -> None:
        """Call `use` with the row and the token, both in the warp's share, and their sum."""
        for group in self._groups:
            for half in self._HALVES:
                for i in range(_SUMS):
                    row = place.tile * TILE_ROWS + place.quad * QUAD + (2 * half + i // 2)
                    token = place.part * 2 + (group * GROUP + i % 2)
                    use(row, token, self._array.load(self._at(group, half) + i))

    def _at(self, group: int, half: int) -> int:
        return (group * len(self._HALVES) + half) * _SUMS
