"""The loops of `gemv`, `gemm_few` and `gemm`, the same for every instruction set; `_dot` is what differs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bitcc.targets._dot import (
    CRUMBS,
    T5_VECTOR_COLUMNS,
    UNPACKED_BYTES,
    VECTOR_BYTES,
    VECTOR_COLUMNS,
    Block,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bitcc.targets._base import Tiles, Walk
    from bitcc.targets._dot import Accumulators, Dot
    from bitcc.targets._tir import Pointer, Register, Tir

_ROW_BYTES = 64  # 16 int32 of the result
_FEWEST_ADDRESSES = 6  # tokens from which on there are no registers for addresses to prefetch from


@dataclass(frozen=True)
class Gemv:
    """Writes `gemv`: one token, and as many streams from memory as the CPU likes."""

    dot: Dot

    def __call__(self, t: Tir, a: Any, tiles: Tiles) -> None:
        """Write the body."""
        _check(self.dot, tiles.gemv)
        loops = _Loops(t, a, self.dot, w=a.w, q_stride=t.long(a.k_blocks) * VECTOR_COLUMNS)
        loops.write(1, t.long(a.begin), t.long(a.end), tiles.gemv)


@dataclass(frozen=True)
class GemvT5:
    """Writes `gemv_t5`: as `gemv`, for weights in layout `t5`.

    Attributes:
        dot: Of a walk that takes several tiles side by side, and decodes their vectors where it needs them.
        ahead: Of a walk with chains, each of which decodes its next vector ahead.
    """

    dot: Dot
    ahead: Dot

    def __call__(self, t: Tir, a: Any, tiles: Tiles) -> None:
        """Write the body."""
        dot = self.ahead if tiles.gemv_t5.chains > 1 else self.dot
        _check_t5(dot, tiles.gemv_t5)
        loops = _Loops(
            t, a, dot, w=a.w, q_stride=t.long(0), vector_columns=T5_VECTOR_COLUMNS, any_vectors=True
        )
        loops.write(1, t.long(a.begin), t.long(a.end), tiles.gemv_t5)


@dataclass(frozen=True)
class GemmFew:
    """Writes `gemm_few`: for each number of tokens, loops in which `dot` unpacks the codes once for all."""

    dot: Dot

    def __call__(self, t: Tir, a: Any, tiles: Tiles) -> None:
        """Write the body."""
        _check(self.dot, *tiles.gemm_few)
        loops = _Loops(t, a, self.dot, w=a.w, q_stride=t.let(t.long(a.k_blocks) * VECTOR_COLUMNS))
        for tokens, walk in enumerate(tiles.gemm_few, start=2):
            with t.when(a.tokens == tokens):
                some = replace(loops, prefetches_next_walk=tokens < _FEWEST_ADDRESSES)
                some.write(tokens, t.long(a.begin), t.long(a.end), walk)


@dataclass(frozen=True)
class GemmFewT5:
    """Writes `gemm_few_t5`: as `gemm_few`, for weights in layout `t5`.

    Attributes:
        dot: Its step decodes a vector once for all tokens.
        walks: As those of `gemm_few`; decoding takes registers, so that fewer tiles fit.
    """

    dot: Dot
    walks: tuple[Walk, ...]

    def __call__(self, t: Tir, a: Any, tiles: Tiles) -> None:
        """Write the body."""
        loops = _Loops(
            t,
            a,
            self.dot,
            w=a.w,
            q_stride=t.let(t.long(a.q_stride)),
            vector_columns=T5_VECTOR_COLUMNS,
            any_vectors=True,
        )
        for tokens in range(2, tiles.few_tokens + 1):
            walk = self.walks[min(tokens - 2, len(self.walks) - 1)]
            _check_t5(self.dot, walk)
            with t.when(a.tokens == tokens):
                loops.write(tokens, t.long(a.begin), t.long(a.end), walk)


@dataclass(frozen=True)
class GemmPairs:
    """Writes `gemm_pairs`: as `gemm_few`, with a `dot` of pairs and activations that lie as loops read them.

    Most tokens come first: they take all registers there are, and LLVM keeps constants in some from one
    number of tokens to the next.
    """

    dot: Dot

    def __call__(self, t: Tir, a: Any, tiles: Tiles) -> None:
        """Write the body."""
        _check(self.dot, *tiles.gemm_pairs)
        arguments = SimpleNamespace(**vars(a), q=a.pairs)
        for tokens, walk in reversed([*enumerate(tiles.gemm_pairs, start=2)]):
            loops = _Loops(
                t,
                arguments,
                self.dot,
                w=a.w,
                q_stride=t.long(VECTOR_COLUMNS),
                vector_columns=VECTOR_COLUMNS * tokens,
                prefetches_next_walk=tokens < _FEWEST_ADDRESSES,
            )
            with t.when(a.tokens == tokens):
                loops.write(tokens, t.long(a.begin), t.long(a.end), walk)


@dataclass(frozen=True)
class Gemm:
    """Writes `gemm`: as `gemm_few`, but `dot` reads codes that were unpacked before."""

    dot: Dot

    def __call__(self, t: Tir, a: Any, tiles: Tiles) -> None:
        """Write the body."""
        _check(self.dot, tiles.gemm)
        q_stride = t.let(t.long(a.q_stride))
        loops = _Loops(t, a, self.dot, w=a.panel, q_stride=q_stride, vector_bytes=UNPACKED_BYTES)
        for tokens in range(1, tiles.gemm_tokens + 1):
            with t.when(a.tokens == tokens):
                loops.write(tokens, t.long(0), t.long(a.tiles), tiles.gemm)


def _check(dot: Dot, *walks: Walk) -> None:
    """K is a multiple of four vectors, and the loop over it has no remainder.

    Raises:
        ValueError: a walk takes a number of vectors that does not divide four.
    """
    for walk in walks:
        if 4 % (dot.vectors * walk.unroll * walk.chains):
            raise ValueError(f"{walk} with steps of {dot.vectors} vectors does not divide 4 vectors")


def _check_t5(dot: Dot, walk: Walk) -> None:
    """A step takes one vector, as there is any number of them.

    Raises:
        ValueError: it takes more.
    """
    if dot.vectors * walk.unroll != 1:
        raise ValueError(f"{walk} with steps of {dot.vectors} vectors takes more than one vector of t5")


def unpack(t: Tir, a: Any, _tiles: Tiles) -> None:
    """Write `unpack`: each crumb of a vector moves to the bottom of a byte of its own."""
    count = t.let(t.long(a.count))
    with t.loop(t.long(a.tiles)) as tile:
        w = t.let(tile * (t.long(a.k_blocks) * VECTOR_BYTES))
        out = t.let(tile * (count * UNPACKED_BYTES))
        with t.loop(count) as vector:
            packed = t.let(a.w.load(w + vector * VECTOR_BYTES, "uint16x32"))
            for i in CRUMBS:
                codes = t.mask(t.reinterpret("uint8x64", t.shift_right(packed, 2 * i)), 3)
                a.panel.store(out + (vector * UNPACKED_BYTES + i * VECTOR_BYTES), codes)


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


@dataclass(frozen=True)
class _Loops:
    """The loop over tiles, and inside it the loop over K.

    Attributes:
        t: Writes them.
        a: The arguments of the kernel.
        dot: What is done inside.
        w: The weights.
        q_stride: Bytes from the activations of a token to those of the next one.
        vector_bytes: Of a vector of weights.
        vector_columns: The same in columns.
        prefetches_next_walk: Whether what is asked for past the end of a tile is in the next walk's tile.
            That takes an address of its own; else it is what comes after, mostly a tile of this walk.
        any_vectors: Whether K may be no multiple of what the body of a loop takes.
    """

    t: Tir
    a: Any
    dot: Dot
    w: Pointer
    q_stride: Any
    vector_bytes: int = VECTOR_BYTES
    vector_columns: int = VECTOR_COLUMNS
    prefetches_next_walk: bool = True
    any_vectors: bool = False

    def write(self, tokens: int, begin: Any, end: Any, walk: Walk) -> None:
        """For the tiles begin .. end - 1, both in 64 bits."""
        begin = self.t.let(begin)
        acc_stride = self.t.let((end - begin) * _ROW_BYTES)

        def body(first: Any, walk: Walk) -> None:
            chains = self._multiply(tokens, first, walk)
            for token, tile in itertools.product(range(tokens), range(walk.tiles)):
                offset = self.t.let(acc_stride * token + (first + tile - begin) * _ROW_BYTES)
                self._add(offset, [chain[token][tile] for chain in chains])

        walk_tiles(self.t, begin, end, walk, body)

    def _multiply(self, tokens: int, first: Any, walk: Walk) -> Sequence[Accumulators]:
        """The tiles first .. first + walk.tiles - 1, by chain."""
        t, dot = self.t, self.dot
        tile_bytes = t.let(t.long(self.a.k_blocks) * self.vector_bytes)
        starts = [t.let((first + tile) * tile_bytes) for tile in range(walk.tiles)]
        chains = [
            [
                [[t.register(t.constant(0, dtype)) for dtype in dot.registers] for _ in starts]
                for _ in range(tokens)
            ]
            for _ in range(walk.chains)
        ]
        ahead = [self._ahead(starts, chain) for chain in range(walk.chains)]
        parts = walk.unroll * walk.chains

        def multiply(vector: Any, chain: int) -> None:
            block = self._block(tokens, starts, vector, walk.prefetch)
            following = self._vectors(starts, vector + walk.chains) if dot.ahead else ()
            dot.step(t, replace(block, ahead=ahead[chain], next_offsets=following), chains[chain])

        count = t.let(t.long(self.a.k_blocks))
        steps = t.let(count // (dot.vectors * parts))
        with t.loop(steps) as step:
            for part in range(parts):
                multiply(t.let((step * parts + part) * dot.vectors), part % walk.chains)
        for part in range(parts - 1 if self.any_vectors else 0):
            vector = t.let(steps * parts + part)
            with t.when(vector < count):
                multiply(vector, part)
        if dot.settle is not None:
            for accumulators in chains:
                dot.settle(t, accumulators)
        return chains

    def _block(self, tokens: int, starts: Sequence[Any], vector: Any, prefetch: int) -> Block:
        """The operands from `vector` on."""
        t = self.t
        offsets = [t.let(start + vector * self.vector_bytes) for start in starts]
        if prefetch:
            self._prefetch(offsets, vector, prefetch)
        return Block(
            q=self.a.q,
            q_offsets=[t.let(self.q_stride * m + vector * self.vector_columns) for m in range(tokens)],
            w=self.w,
            w_offsets=offsets,
        )

    def _ahead(self, starts: Sequence[Any], vector: int) -> Sequence[Sequence[Register]]:
        """What is made of a vector of each tile before the first step, if anything is."""
        t, dot = self.t, self.dot
        if dot.ahead is None:
            return ()
        offsets = self._vectors(starts, vector) if vector else starts
        return [[t.register(value) for value in dot.ahead(t, self.w, offset)] for offset in offsets]

    def _vectors(self, starts: Sequence[Any], vector: Any) -> Sequence[Any]:
        """Where a vector of each tile is, or the last one."""
        t = self.t
        number = t.let(t.minimum(t.long(vector), t.long(self.a.k_blocks) - 1))
        return [t.let(start + number * self.vector_bytes) for start in starts]

    def _prefetch(self, offsets: Sequence[Any], vector: Any, distance: int) -> None:
        """Ask for what is `distance` further on."""
        t = self.t
        further: Any = distance
        if self.prefetches_next_walk:
            k_blocks = t.long(self.a.k_blocks)
            others = k_blocks * (VECTOR_BYTES * (len(offsets) - 1))  # the tiles between
            inside = vector + distance // VECTOR_BYTES < k_blocks
            further = t.let(distance + t.select(inside, t.long(0), others))
        for offset in offsets:
            for ahead in range(self.dot.vectors):
                self.w.prefetch(offset + (further + ahead * VECTOR_BYTES))

    def _add(self, offset: Any, chains: Sequence[Sequence[Register]]) -> None:
        """Add the totals of a token and a tile to the 16 rows at `offset`."""
        acc = self.a.acc
        totals = [self.dot.total(self.t, [register.get() for register in chain]) for chain in chains]
        for part, rows in enumerate(zip(*totals, strict=True)):
            here = self.t.let(offset + part * _ROW_BYTES // len(totals[0]))
            acc.store(here, sum(rows, acc.load(here, f"int32x{16 // len(totals[0])}")))
