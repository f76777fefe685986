"""What is told of the weights of a layer: their scheme, their levels and how often each occurs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitcc.passes.nearest import nearest, sample_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.passes.matrix import Matrix
    from bitcc.passes.ternary import Ternary

_MOST_LEVELS = 16
_BINS = 32  # more than the levels that are told one by one
_MOST_STEPS = 256


@dataclass(frozen=True)
class WeightFacts:
    """The part of ``LayerFacts`` that is about the weights; see there."""

    scheme: str = "dense"
    scope: str = ""
    scale: float | None = None
    zeros: float | None = None
    positive: float | None = None
    entropy: float | None = None
    levels: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    nearest: str = ""


def of_ternary(ternary: Ternary) -> WeightFacts:
    """Exact figures: the codes are at hand."""
    shares = {-1.0: 1 - ternary.zeros - ternary.positive, 0.0: ternary.zeros, 1.0: ternary.positive}
    if ternary.scheme == "binary":
        del shares[0.0]
    return WeightFacts(
        scheme=ternary.scheme,
        scope=ternary.scope,
        scale=float(ternary.scale.mean()),
        zeros=ternary.zeros,
        positive=ternary.positive,
        entropy=_entropy(np.array(list(shares.values()))),
        levels=tuple(shares),
        shares=tuple(map(float, shares.values())),
    )


def of_dense(matrix: Matrix) -> tuple[WeightFacts, str]:
    """Figures of a sample of [N, K] weights that are not ternary, and what the user can do about that."""
    sample = sample_of(matrix)
    found = nearest(matrix)
    if not found.words:  # NaN, infinity, or zeros alone
        return WeightFacts(), ""
    values, counts = np.unique(sample, return_counts=True)
    values = values / np.abs(values).max()
    if len(values) <= _MOST_LEVELS:
        step = float(np.diff(values).min(initial=1))
        values = values / (step if step > 1 / _MOST_STEPS else 1)
        entropy = _entropy(counts / sample.size)
    else:
        counts, edges = np.histogram(values, _BINS, (-1, 1), weights=counts)
        values, entropy = (edges[1:] + edges[:-1]) / 2, None
    facts = WeightFacts(
        entropy=entropy,
        levels=tuple(round(float(value), 4) for value in values),
        shares=tuple(round(float(count), 4) for count in counts / sample.size),
        nearest=found.words,
    )
    return facts, found.fix


def _entropy(shares: NDArray[np.float64]) -> float:
    """Of the levels, in bits a weight."""
    some = shares[shares > 0]
    return float(-(some * np.log2(some)).sum()) + 0.0  # not -0.0
