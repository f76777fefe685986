"""What two models computed, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Outputs: TypeAlias = "list[NDArray[Any]]"


def flat(outputs: Sequence[Any]) -> Outputs:
    """Sequences and maps as the arrays that they hold; an optional output that is not there is empty."""
    found: Outputs = []
    for output in outputs:
        if isinstance(output, dict):
            found += flat([list(output), list(output.values())])
        elif isinstance(output, list) and not all(np.isscalar(item) for item in output):
            found += flat(output)
        else:
            found.append(np.zeros(0) if output is None else np.asarray(output))
    return found


def equal(got: Outputs, want: Outputs) -> bool:
    """Whether all values are the same; NaN is the same as NaN."""
    return len(got) == len(want) and all(
        np.array_equal(g, w, equal_nan=g.dtype.kind == w.dtype.kind == "f")
        for g, w in zip(got, want, strict=True)
    )


def distance(got: Outputs, want: Outputs) -> float:
    """The largest |got - want| / max|want| over the floating-point outputs, absolute where all are zero.

    Infinite where there is no such figure: outputs of other number, shape or kind, other NaN or infinities,
    or any difference of outputs that are no floating-point numbers.
    """
    if len(got) != len(want):
        return float("inf")
    worst = 0.0
    for g, w in zip(got, want, strict=True):
        if (g.shape, g.dtype.kind) != (w.shape, w.dtype.kind):
            return float("inf")
        if w.dtype.kind != "f":
            worst = worst if np.array_equal(g, w) else float("inf")
            continue
        finite = np.isfinite(w)
        if not (np.isfinite(g[finite]).all() and np.array_equal(g[~finite], w[~finite], equal_nan=True)):
            return float("inf")
        g64, w64 = g[finite].astype(np.float64), w[finite].astype(np.float64)
        scale = float(np.max(np.abs(w64), initial=0.0)) or 1.0
        worst = max(worst, float(np.max(np.abs(g64 - w64), initial=0.0)) / scale)
    return worst
