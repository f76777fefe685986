"""Rounds of timing: every contender runs once a round, and the order rotates from round to round."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter, process_time, sleep
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bitcc.bench import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Samples: TypeAlias = "dict[str, list[float]]"

_PATIENCE = 0.5  # seconds


@dataclass(frozen=True)
class Pace:
    """How long to measure.

    Attributes:
        rounds: Rounds in which every contender runs once.
        batch: Seconds that a contender runs at least in a round, in as many calls as that takes: several
            of 30 ms, too. A core that slept for `settle` is slow at first, and such a call alone took up to
            a tenth longer.
        settle: Seconds for which this process must have been idle before a batch: the threads of a session
            of onnxruntime spin for tens of milliseconds after a run, and would take the cores of the next
            contender.
    """

    rounds: int = 15
    batch: float = 0.05
    settle: float = 0.01


def interleave(calls: Mapping[str, Callable[[], None]], pace: Pace) -> Samples:
    """Seconds for one call, for every contender and round.

    A contender whose call is shorter than a batch warms the caches up for a quarter of a batch first.
    """
    names = list(calls)
    repeats = {name: max(1, math.ceil(pace.batch / _once(calls[name]))) for name in names}
    samples: Samples = {name: [] for name in names}
    for turn in range(pace.rounds):
        start = turn % max(1, len(names))
        for name in names[start:] + names[:start]:
            _settle(pace.settle)
            with cores.first():
                if repeats[name] > 1:
                    _batch(calls[name], math.ceil(repeats[name] / 4))
                samples[name].append(_batch(calls[name], repeats[name]))
    return samples


def _once(call: Callable[[], None]) -> float:
    """The better of two calls; never 0."""
    return max(1e-7, min(_batch(call, 1), _batch(call, 1)))


def _batch(call: Callable[[], None], repeats: int) -> float:
    start = perf_counter()
    for _ in range(repeats):
        call()
    return (perf_counter() - start) / repeats


def _settle(seconds: float) -> None:
    """Sleep until no thread of this process has run for a while, or until patience ends."""
    if not seconds:
        return
    end = perf_counter() + _PATIENCE
    while perf_counter() < end:
        used = process_time()
        sleep(seconds)
        if process_time() - used < seconds / 4:
            return


@dataclass(frozen=True)
class Spread:
    """Seconds over the rounds.

    Attributes:
        median: The median.
        low: The first quartile.
        high: The third quartile.
        best: The minimum.
    """

    median: float
    low: float
    high: float
    best: float


def spread(samples: Sequence[float]) -> Spread:
    """Median, quartiles and minimum."""
    low, median, high = (float(q) for q in np.percentile(samples, [25, 50, 75]))
    return Spread(median, low, high, float(min(samples)))


def ratio(samples: Sequence[float], base: Sequence[float]) -> float:
    """The median over the rounds of samples / base of the same round."""
    return float(np.median(np.array(samples) / np.array(base)))
