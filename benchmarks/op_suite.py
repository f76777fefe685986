"""The op against its peers, with the peaks of the machine measured before it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import bitcc
from benchmarks import peaks, peers
from bitcc.bench import op
from bitcc.bench.results import CACHED, STREAMED
from bitcc.bench.rounds import Pace

if TYPE_CHECKING:
    from bitcc.bench.op import Progress

ODD_SHAPES = ((192, 500), (320, 96), (16, 64), (127, 509))
_ODD_BYTES = 4 * 2**20  # of copies side by side in one session: its call counts for little
_SMALLEST, _SMALLEST_BYTES = ((16, 64),), 64 * 2**10
_MOST_STREAMED = 4  # tokens; with more, memory isn't what counts


@dataclass(frozen=True)
class Choice:
    """What to measure.

    Attributes:
        shapes: Layers, as (N, K).
        tokens: Rows of the input.
        threads: Of each session.
        regimes: ``cached``, ``streamed``; the second one for up to four tokens only.
        peers: Their names.
        pace: How long to measure.
        stream_bytes: Weights that a contender rotates over in ``streamed``, at least.
        odd: Measure also small and odd layers, and what one op costs at least.
        peak_bytes: Memory that the bandwidth is read from.
    """

    shapes: tuple[tuple[int, int], ...] = op.SHAPES
    tokens: tuple[int, ...] = (1, 128)
    threads: tuple[int, ...] = (1, 2)
    regimes: tuple[str, ...] = (CACHED, STREAMED)
    peers: tuple[str, ...] = peers.NAMES
    pace: Pace = field(default_factory=Pace)
    stream_bytes: int = op.Plan.stream_bytes
    odd: bool = True
    peak_bytes: int = 512 * 2**20

    def plans(self) -> dict[str, op.Plan]:
        """What the op benchmark is asked for, by the name of the part."""
        wanted = [(t, r) for t in self.tokens for r in self.regimes]
        kinds = tuple((t, r) for t, r in wanted if r == CACHED or t <= _MOST_STREAMED)
        main = op.Plan(self.shapes, kinds, self.threads, self.pace, self.stream_bytes, yardstick=False)
        if not self.odd:
            return {"layers": main}
        side_by_side = tuple((t, STREAMED) for t in self.tokens)
        odd = replace(main, shapes=ODD_SHAPES, kinds=side_by_side, stream_bytes=_ODD_BYTES)
        least = replace(odd, shapes=_SMALLEST, kinds=((1, STREAMED),), stream_bytes=_SMALLEST_BYTES)
        return {"layers": main, "odd layers side by side": odd, "overhead of one op": least}


def quick() -> Choice:
    """A minute or two: two shapes, from cache, in few rounds."""
    return Choice(
        shapes=(op.SHAPES[0], op.SHAPES[3]),
        regimes=(CACHED,),
        threads=(1,),
        pace=Pace(rounds=5),
        odd=False,
        peak_bytes=64 * 2**20,
    )


def run(choice: Choice, progress: Progress | None = None) -> dict[str, Any]:
    """Measure; the result is plain data, as ``report`` reads it."""
    library = bitcc.library_path()
    found, missing = peers.find(choice.peers)
    roofs, no_peaks = _peaks(choice)
    parts = {
        name: op.run(library, plan, peers=found, progress=progress).to_dict()
        for name, plan in choice.plans().items()
    }
    return {"suite": "op", "peaks": roofs, "no_peaks": no_peaks, "missing": missing, "parts": parts}


def _peaks(choice: Choice) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """One entry for each variant that the CPU has and number of threads; and why the others have none."""
    try:
        variants, missing = peaks.variants()
    except OSError as error:
        return [], dict.fromkeys(peaks.LANES, f"the features of the CPU are not known: {error}")
    if not variants:
        return [], missing
    data = np.ones(choice.peak_bytes, np.uint8)
    with tempfile.TemporaryDirectory(prefix="bitcc-peaks-") as folder:
        library = peaks.build(Path(folder))
        return [
            {
                "variant": variant,
                "threads": threads,
                "gmac_per_s": peaks.multiply_adds(library, variant, threads),
                "read_gb_per_s": peaks.read(library, variant, threads, data),
            }
            for variant in variants
            for threads in choice.threads
        ], missing
