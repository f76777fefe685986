"""A whole model compiled by bitcc, against itself: ``bitcc bench`` with the compilation before it."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bitcc
from bitcc.bench import model
from bitcc.bench.rounds import Pace

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLE = Path(__file__).parent.parent / "examples" / "tiny_lm.onnx"
_DECODING = {"batch": 1, "sequence": 1, "past_sequence": 128}  # of the example: one token after others


def run(original: Path, dims: Mapping[str, int], threads: int, rounds: int) -> dict[str, Any]:
    """Measure; the result is plain data, as ``report`` reads it.

    Args:
        original: The model.
        dims: Sizes of its dynamic dimensions by name; for the example they have defaults.
        threads: Of the sessions; 0 is onnxruntime's default.
        rounds: Rounds of timing.
    """
    sizes = {**(_DECODING if original == EXAMPLE else {}), **dims}
    with tempfile.TemporaryDirectory(prefix="bitcc-model-") as folder:
        bundle = bitcc.compile(original, Path(folder) / "bundle", verify=False)
        found = model.run(bundle, original, dims=sizes, threads=threads, pace=Pace(rounds=rounds))
    first = next(iter(found.inputs.values()))
    return {"suite": "model", "tokens": math.prod(first[:2]), **found.to_dict()}
