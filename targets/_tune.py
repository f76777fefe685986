"""The search for the tile sizes of a variant that are fastest on a machine: plain, one axis after the other.

For each family of kernels the tiles of its walk are tried first, then what remains; the best of an axis is
where the next one begins. What was found is then measured once more against what the variant has, and kept
only where it is faster by a margin. Every candidate passes the self-test of the library before it is timed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from statistics import geometric_mean, median
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

from bitcc.targets._measure import FAMILIES, MANY, Case
from bitcc.targets._tuned import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bitcc.targets._base import Tiles, Variant, Walk
    from bitcc.targets._measure import Bench, Workshop

    Progress: TypeAlias = Callable[[str], None]
    Axis: TypeAlias = Callable[[Tiles], Iterator[Tiles]]

MARGIN = 1.03  # times as fast, or it is noise
_SAMPLE = 0.002  # seconds of one measurement
_LEAST_ROUNDS, _CONFIRMING_ROUNDS = 3, 7
_GROUP = 4  # tiles that the library gives to `gemm` and those for few tokens at once
_FEW = ("gemm_few", "gemm_pairs")  # which have a walk for each number of tokens
_GEMM_SIZES = ("gemm", "gemm_tokens", "panel_tiles", "panel_vectors")
_PREFETCHES = (0, 512, 1024, 2048, 4096)
_FURTHER = (*_PREFETCHES, 8192)  # of one stream, which alone has to keep the memory busy


@dataclass(frozen=True)
class Part:
    """Sizes that are chosen by themselves: those of a family, or of a number of tokens in one for few.

    Attributes:
        family: Of the kernel.
        tokens: That it is timed with.
    """

    family: str
    tokens: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.family} {self.tokens}" if self.family in _FEW else self.family

    def cases(self) -> tuple[Case, ...]:
        """What is timed: weights from a cache and from memory count the same, but for many tokens."""
        streamed = (False,) if self.family == "gemm" else (False, True)
        return tuple(Case(self.tokens, from_memory) for from_memory in streamed)

    def walk(self, tiles: Tiles) -> Walk:
        """Of these sizes."""
        sizes = getattr(tiles, self.family)
        walk: Walk = sizes[self.tokens - 2] if self.family in _FEW else sizes
        return walk

    def describe(self, tiles: Tiles) -> str:
        """For people."""
        walk = self.walk(tiles)
        text = f"{walk.tiles} tiles, unroll {walk.unroll}, prefetch {walk.prefetch}"
        text += f", {walk.chains} chains" if walk.chains > 1 else ""
        many = f", {tiles.gemm_tokens} tokens, panels of {tiles.panel_tiles} x {tiles.panel_vectors}"
        return text + (many if self.family == "gemm" else "")

    def taken_from(self, other: Tiles, into: Tiles) -> Tiles:
        """The sizes `into`, but for those of this part."""
        if self.family == "gemm":
            sizes = {name: getattr(other, name) for name in _GEMM_SIZES}
            return replace(into, **sizes)
        changed: Any = self.walk(other)
        if self.family in _FEW:
            walks = list(getattr(into, self.family))
            walks[self.tokens - 2] = changed
            changed = tuple(walks)
        found: dict[str, Any] = {self.family: changed}
        return replace(into, **found)


def parts(tiles: Tiles, family: str) -> list[Part]:
    """What is chosen in a family."""
    if family in _FEW:
        return [Part(family, tokens) for tokens, _ in enumerate(getattr(tiles, family), start=2)]
    return [Part(family, MANY if family == "gemm" else 1)]


def _gemv_walks(tiles: Tiles) -> Iterator[Tiles]:
    for count, unroll in itertools.product((1, 2, 4, 8), (1, 2, 4)):
        yield replace(tiles, gemv=replace(tiles.gemv, tiles=count, unroll=unroll, chains=1))
    for chains in (2, 4):
        yield replace(tiles, gemv=replace(tiles.gemv, tiles=1, unroll=1, chains=chains))


def _t5_walks(tiles: Tiles) -> Iterator[Tiles]:
    for count in (1, 2, 4, 8):  # of one vector each: there is any number of them
        yield replace(tiles, gemv_t5=replace(tiles.gemv_t5, tiles=count, chains=1))
    for chains in (2, 3, 4):
        yield replace(tiles, gemv_t5=replace(tiles.gemv_t5, tiles=1, chains=chains))


def _t5_prefetches(tiles: Tiles) -> Iterator[Tiles]:
    for distance in _FURTHER:
        yield replace(tiles, gemv_t5=replace(tiles.gemv_t5, prefetch=distance))


def _gemv_prefetches(tiles: Tiles) -> Iterator[Tiles]:
    for distance in _FURTHER:
        yield replace(tiles, gemv=replace(tiles.gemv, prefetch=distance))


def _few_walks(family: str) -> Axis:
    def walks(tiles: Tiles) -> Iterator[Tiles]:
        for count in (1, 2, _GROUP):
            yield _all(tiles, family, tiles=count)

    return walks


def _few_prefetches(family: str) -> Axis:
    def prefetches(tiles: Tiles) -> Iterator[Tiles]:
        for distance in _PREFETCHES[:-1]:
            yield _all(tiles, family, prefetch=distance)

    return prefetches


def _all(sizes: Tiles, family: str, **numbers: int) -> Tiles:
    """With these numbers for all numbers of tokens of a family."""
    walks: dict[str, Any] = {family: tuple(replace(walk, **numbers) for walk in getattr(sizes, family))}
    return replace(sizes, **walks)


def _many_walks(tiles: Tiles) -> Iterator[Tiles]:
    blocks = sorted({-(-tokens // tiles.gemm_unit) * tiles.gemm_unit for tokens in (3, 4, 6, 8, 12)})
    for count, tokens in itertools.product((1, 2, _GROUP), blocks):
        if count * tokens <= 2 * tiles.gemm.tiles * tiles.gemm_tokens:  # more would only be spilled
            yield replace(tiles, gemm=replace(tiles.gemm, tiles=count), gemm_tokens=tokens)


def _panels(tiles: Tiles) -> Iterator[Tiles]:
    for count, vectors in itertools.product((2, _GROUP), (8, 16, 32, 64)):
        if count >= tiles.gemm.tiles:  # otherwise its loop would not be used
            yield replace(tiles, panel_tiles=count, panel_vectors=vectors)


def _float_walks(tiles: Tiles) -> Iterator[Tiles]:
    walk = tiles.gemv_float
    for count in (walk.tiles // 4, walk.tiles // 2, walk.tiles, 2 * walk.tiles):
        if 1 <= count <= 64:
            yield replace(tiles, gemv_float=replace(walk, tiles=count))


def _float_prefetches(tiles: Tiles) -> Iterator[Tiles]:
    for distance in _PREFETCHES[:-1]:
        yield replace(tiles, gemv_float=replace(tiles.gemv_float, prefetch=distance))


AXES: Mapping[str, tuple[Axis, ...]] = {
    "gemv": (_gemv_walks, _gemv_prefetches),
    "gemm_few": (_few_walks("gemm_few"), _few_prefetches("gemm_few")),
    "gemm": (_many_walks, _panels),
    "gemv_float": (_float_walks, _float_prefetches),
    "gemv_t5": (_t5_walks, _t5_prefetches),
    "gemm_pairs": (_few_walks("gemm_pairs"), _few_prefetches("gemm_pairs")),
}


def tune(
    variant: Variant,
    workshop: Workshop,
    seconds: float,
    *,
    axes: Mapping[str, tuple[Axis, ...]] = AXES,
    progress: Progress | None = None,
) -> tuple[Tiles, list[Change]]:
    """The tiles that are fastest, and what changed.

    Args:
        variant: Whose tiles are searched.
        workshop: Makes its candidates.
        seconds: To spend on measuring; compiling comes on top of it.
        axes: What is tried, by family.
        progress: Called with a few words when a step starts.

    Raises:
        TargetError: the machine cannot run the variant, or a candidate computes wrong numbers.
    """
    say = progress or (lambda _: None)
    has = dict(variant.kernels)
    axes = {family: axes[family] for family in FAMILIES if family in axes and family in has}
    share = seconds / max(1, sum(map(len, axes.values())) + len(axes))
    tiles, changes = variant.tiles, []
    for family, choices in axes.items():
        chosen = parts(tiles, family)
        for axis in choices:
            options = [tiles, *(option for option in buildable(variant, axis(tiles)) if option != tiles)]
            with workshop.open(family, options, say) as bench:
                say(f"{variant.name}: timing {len(options)} times {family}")
                for part in chosen:
                    scores = _ratios(bench, part, len(options), share / len(chosen), _LEAST_ROUNDS)
                    best = max(range(len(options)), key=scores.__getitem__)
                    tiles = part.taken_from(options[best], tiles)
        with workshop.open(family, [variant.tiles, tiles], say) as bench:
            say(f"{variant.name}: timing what was found for {family} again")
            for part in chosen:
                change = _confirmed(bench, part, variant.tiles, tiles, share / len(chosen))
                tiles = tiles if change.ratio > 1 else part.taken_from(variant.tiles, tiles)
                changes.append(change)
    return tiles, changes


def buildable(variant: Variant, options: Iterator[Tiles]) -> Iterator[Tiles]:
    """Those whose loops divide, as a step may take several vectors, and whose sums fit the registers."""
    limits = [kernel.fits for _, kernel in variant.kernels if hasattr(kernel, "fits")]
    for tiles in options:
        if not all(fits(tiles) for fits in limits):
            continue
        steps = [
            walk.unroll * walk.chains for walk in (tiles.gemv, tiles.gemm, *tiles.gemm_few, *tiles.gemm_pairs)
        ]
        if all(4 % (vectors * step) == 0 for step in steps for vectors in _steps(variant)):
            yield tiles


def _steps(variant: Variant) -> set[int]:
    """Vectors of a step of K, where a kernel says it."""
    return {getattr(getattr(kernel, "dot", None), "vectors", 1) for _, kernel in variant.kernels}


def _ratios(bench: Bench, part: Part, count: int, seconds: float, least_rounds: int) -> Sequence[float]:
    """How many times as fast as the first candidate each is, in rounds of one measurement each."""
    rounds: dict[Case, list[list[float]]] = {case: [] for case in part.cases()}
    end = perf_counter() + seconds
    for done in itertools.count():
        if done >= least_rounds and perf_counter() > end:
            break
        for case, timed in rounds.items():
            times = [0.0] * count
            for i in range(count):
                turn = (done + i) % count
                times[turn] = bench.seconds(turn, case, _SAMPLE)
            timed.append(times)
    return [geometric_mean(_ratio(timed, i) for timed in rounds.values()) for i in range(count)]


def _ratio(rounds: Sequence[Sequence[float]], candidate: int) -> float:
    """By the median over the rounds or by the best times, whichever says less.

    On a busy machine a median alone can be the bad luck of the first candidate.
    """
    middle = median(times[0] / times[candidate] for times in rounds)
    best = min(times[0] for times in rounds) / min(times[candidate] for times in rounds)
    return min(middle, best)


def _confirmed(bench: Bench, part: Part, before: Tiles, after: Tiles, seconds: float) -> Change:
    old = part.describe(before)
    if part.taken_from(after, before) == before:
        return Change(part.name, old, old, 1.0)
    ratio = _ratios(bench, part, 2, seconds, _CONFIRMING_ROUNDS)[1]
    if ratio < MARGIN:
        return Change(part.name, old, old, 1.0)
    return Change(part.name, old, part.describe(after), ratio)
