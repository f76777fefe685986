"""What the op benchmark found, as values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitcc.bench.machine import Machine
    from bitcc.bench.rounds import Spread

CACHED, STREAMED, ON_GPU = "cached", "streamed", "gpu"


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        n: Outputs of the layer.
        k: Inputs.
        tokens: Rows of the input.
        threads: Of each session.
        regime: ``cached``: one layer again and again; ``streamed``: so many copies of the layer that no
            cache holds them, one after the other; ``gpu``: the same, on a GPU.
    """

    n: int
    k: int
    tokens: int
    threads: int
    regime: str


@dataclass(frozen=True)
class Timing:
    """One contender in one case.

    Attributes:
        contender: Its name.
        seconds: For one layer; None if it did not run.
        samples: Seconds for one layer in each round.
        ratio: Its time over ours in the same round, the median over the rounds; None if it did not run.
        copies: Layers in the session, each with its own weights.
        weight_bytes: Constants that one layer reads.
        gb_per_s: ``weight_bytes`` over the median; None if it did not run, or if it took so little that the
            overhead, which was subtracted, is all but all of it.
        error: Largest difference from our op relative to max|y|.
        reason: Why it did not run, or was not timed; else empty.
    """

    contender: str
    seconds: Spread | None = None
    samples: tuple[float, ...] = ()
    ratio: float | None = None
    copies: int = 0
    weight_bytes: int = 0
    gb_per_s: float | None = None
    error: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class CaseResult:
    """All contenders in one case.

    Attributes:
        case: The case.
        timings: Ours first.
        overhead: Seconds of a run that computes nothing. They were subtracted in the regimes ``cached``,
            where a run is one layer, and ``gpu``, where it is a few that take as little; a layer in a model
            does not pay them.
        others: Share of all cores that other processes took meanwhile: the result is to be trusted when
            it is small. None where the system does not say.
    """

    case: Case
    timings: tuple[Timing, ...]
    overhead: float
    others: float | None = None

    def timing(self, contender: str) -> Timing:
        """That of one contender."""
        return next(t for t in self.timings if t.contender == contender)


@dataclass(frozen=True)
class Mean:
    """A peer over all shapes of one kind of case.

    Attributes:
        contender: The peer.
        tokens: As in the cases.
        threads: As in the cases.
        regime: As in the cases.
        ratio: Geometric mean of its ratios: how many times faster our op is.
        shapes: How many shapes that is; those on which the peer did not run are missing.
    """

    contender: str
    tokens: int
    threads: int
    regime: str
    ratio: float
    shapes: int


@dataclass(frozen=True)
class OpBench:
    """The whole benchmark.

    Attributes:
        machine: Where it ran.
        contenders: What each name stands for.
        rounds: Rounds of every case.
        cases: In the order of running.
        means: One for each peer and kind of case.
        seconds: How long the benchmark took.
    """

    machine: Machine
    contenders: dict[str, str]
    rounds: int
    cases: tuple[CaseResult, ...]
    means: tuple[Mean, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON: dictionaries, lists, strings and numbers only."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def means(cases: tuple[CaseResult, ...]) -> tuple[Mean, ...]:
    """The geometric means over the shapes, for each peer and kind of case."""
    ratios: dict[tuple[str, int, int, str], list[float]] = {}
    for result in cases:
        case = result.case
        for timing in result.timings[1:]:
            if timing.ratio is not None:
                key = (timing.contender, case.tokens, case.threads, case.regime)
                ratios.setdefault(key, []).append(timing.ratio)
    return tuple(Mean(*key, geometric_mean(found), len(found)) for key, found in ratios.items())
