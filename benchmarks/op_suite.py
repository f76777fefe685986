"""The op against its peers, with the peaks of the machine measured before it."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import bitcc
from benchmarks import bars, peaks, peers
from bitcc.bench import op
from bitcc.bench.results import CACHED, STREAMED
from bitcc.bench.rounds import Pace

if TYPE_CHECKING:
    from pathlib import Path

    from bitcc.bench.op import Progress

LAYERS, ODD, OVERHEAD = PARTS = ("layers", "odd", "overhead")
ODD_SHAPES = ((192, 500), (320, 96), (64, 64), (127, 127), (127, 509))
_SMALLEST = ((16, 64),)
_SIDE_BY_SIDE = 64  # copies in one session: its call counts for little
_LIBRARY = "libbitcc_ops.so"
_MOST_STREAMED = 4  # tokens; with more, memory isn't what counts


@dataclass(frozen=True)
class Choice:
    """What to measure.

    Attributes:
        shapes: Layers, as (N, K).
        parts: Of ``PARTS``: those layers; small and odd ones side by side; what one op costs at least.
        tokens: Rows of the input.
        threads: Of each session.
        regimes: ``cached``, ``streamed``; the second one for up to four tokens only.
        peers: Their names.
        pace: How long to measure.
        stream_bytes: Weights that a contender rotates over in ``streamed``, at least.
        peak_bytes: Memory that the bandwidth is read from.
        prebuilt: A folder that `prebuild` filled; None to take what the cache has or to build.
    """

    shapes: tuple[tuple[int, int], ...] = op.SHAPES
    parts: tuple[str, ...] = PARTS
    tokens: tuple[int, ...] = (1, 128)
    threads: tuple[int, ...] = (1, 2)
    regimes: tuple[str, ...] = (CACHED, STREAMED)
    peers: tuple[str, ...] = peers.NAMES
    pace: Pace = field(default_factory=Pace)
    stream_bytes: int = op.Plan.stream_bytes
    peak_bytes: int = 256 * 2**20
    prebuilt: Path | None = None

    def plans(self) -> dict[str, op.Plan]:
        """What the op benchmark is asked for, by the title of the part."""
        wanted = [(t, r) for t in self.tokens for r in self.regimes]
        kinds = tuple((t, r) for t, r in wanted if r == CACHED or t <= _MOST_STREAMED)
        main = op.Plan(self.shapes, kinds, self.threads, self.pace, self.stream_bytes)
        side_by_side = tuple((t, STREAMED) for t in self.tokens)
        odd = replace(main, shapes=ODD_SHAPES, kinds=side_by_side, copies=_SIDE_BY_SIDE)
        least = replace(odd, shapes=_SMALLEST, kinds=((1, STREAMED),))
        plans = {LAYERS: main, ODD: odd, OVERHEAD: least}
        titles = {LAYERS: "layers", ODD: "odd layers side by side", OVERHEAD: "overhead of one op"}
        return {titles[part]: plans[part] for part in self.parts}


def quick() -> Choice:
    """A minute or two: two shapes, from cache, in few rounds."""
    return Choice(
        shapes=(op.SHAPES[0], op.SHAPES[3]),
        regimes=(CACHED,),
        threads=(1,),
        pace=Pace(rounds=5),
        parts=(LAYERS,),
        peak_bytes=64 * 2**20,
    )


def run(choice: Choice, progress: Progress | None = None) -> dict[str, Any]:
    """Measure; the result is plain data, as ``report`` reads it."""
    library = library_of(choice.prebuilt)
    found, missing = peers.find(choice.peers, choice.prebuilt)
    roofs, no_peaks = _peaks(choice)
    parts = {
        name: op.run(library, plan, peers=found, progress=progress).to_dict()
        for name, plan in choice.plans().items()
    }
    result = {"suite": "op", "peaks": roofs, "no_peaks": no_peaks, "missing": missing, "parts": parts}
    return result | {"bars": [asdict(bar) for bar in bars.find(result)]}


def library_of(prebuilt: Path | None) -> Path:
    """The op library that is measured."""
    return bitcc.library_path() if prebuilt is None else prebuilt / _LIBRARY


def prebuild(folder: Path) -> None:
    """Copy what is built with TVM and zig into a folder, for a machine of this platform that has neither."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(bitcc.library_path(), folder / _LIBRARY)
    peaks.build(folder)


def _peaks(choice: Choice) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """One entry for each variant that the CPU has and number of threads; and why the others have none."""
    try:
        variants, missing = peaks.variants()
    except OSError as error:
        return [], dict.fromkeys(peaks.LANES, f"the features of the CPU are not known: {error}")
    if not variants:
        return [], missing
    data = np.ones(choice.peak_bytes, np.uint8)
    try:
        library = peaks.load(choice.prebuilt)
    except OSError as error:
        return [], missing | dict.fromkeys(variants, str(error))
    bandwidths = {threads: peaks.read(library, variants[0], threads, data) for threads in choice.threads}
    return [
        {
            "variant": variant,
            "threads": threads,
            "gmac_per_s": peaks.multiply_adds(library, variant, threads),
            "read_gb_per_s": bandwidths[threads],
        }
        for variant in variants
        for threads in choice.threads
    ], missing
