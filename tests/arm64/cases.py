"""Layers of one node that together take every kernel of a variant through its loops and their ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from models.op import model_of

from bitcc import formats, ops, ternary_linear
from bitcc.ops import ActScale, BitLinear, Norm
from bitcc.ternary_linear import TernaryLinear

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

# One token, few, and so many that weights are unpacked; one more than any kernel takes at once, too.
_TOKENS = (1, 2, 3, 4, 5, 6, 7, 40)


def write(folder: Path) -> dict[str, Array]:
    """Write NAME.onnx and NAME.npz of every case; the results are what the numpy specs say, by name."""
    expected = {}
    for name, op, dtype, feeds in _cases(np.random.default_rng(0)):
        onnx.save(model_of(op, dtype), folder / f"{name}.onnx")
        np.savez(folder / f"{name}.npz", **feeds)
        x, w, scale, bias, *gain = feeds.values()
        with np.errstate(all="ignore"):
            if isinstance(op, TernaryLinear):
                expected[name] = ternary_linear.reference(x, w, scale, bias, op)
            else:
                expected[name] = ops.reference(x, w, scale, bias, op, gain=gain[0])
    return expected


def _cases(
    rng: np.random.Generator,
) -> Iterator[tuple[str, BitLinear | TernaryLinear, str, dict[str, Array]]]:
    """Name, op, type of X, and inputs."""
    for tokens in _TOKENS:
        op = BitLinear(N=16 * 5 + 3, K=330)
        yield f"accumulators-{tokens}", op, "float32", _whole(rng, op, tokens)
    op = BitLinear(N=16, K=65536)
    for name, code in (("plus", 1), ("minus", -1)):
        feeds = _whole(rng, op, 7)
        feeds["X"] = np.full((7, op.K), -127, np.float32)
        feeds["W"] = formats.get("t2", 1).pack(np.full((op.N, op.K), code, np.int8))
        yield f"largest-{name}", op, "float32", feeds
    for form in ActScale:
        for first in (False, True):
            op = BitLinear(N=100, K=1000, act_scale=form, bias_before_scale=first)
            yield f"floats-{form.value}-{first}", op, "float32", _random(rng, op, 5)
    op = BitLinear(N=70, K=200, norm=Norm.RMS)
    yield "norm", op, "float32", _random(rng, op, 3)
    feeds = _random(rng, op, 3)
    feeds["X"] = feeds["X"].astype(np.float16)
    yield "half", op, "float16", feeds
    feeds = _random(rng, op := BitLinear(N=40, K=100), 4)
    feeds["X"][:, 17] = [np.nan, np.inf, -np.inf, 0]
    yield "not-finite", op, "float32", feeds
    for group in (16, 48, 320):
        yield (
            f"groups-{group}",
            (op := TernaryLinear(N=83, K=320, group_size=group)),
            "float32",
            _powers(rng, op),
        )


def _weights(rng: np.random.Generator, op: BitLinear | TernaryLinear) -> Array:
    return formats.get("t2", 1).pack(rng.integers(-1, 2, (op.N, op.K)).astype(np.int8))


def _whole(rng: np.random.Generator, op: BitLinear, tokens: int) -> dict[str, Array]:
    """Activations that are codes, and scales of one: the results are the accumulators."""
    x = rng.integers(-127, 128, (tokens, op.K)).astype(np.float32)
    x[:, 0] = 127
    ones, zeros = np.ones(1, np.float32), np.zeros(1, np.float32)
    return {"X": x, "W": _weights(rng, op), "w_scale": ones, "bias": zeros, "gain": ones}


def _random(rng: np.random.Generator, op: BitLinear, tokens: int) -> dict[str, Array]:
    gain = np.ones(1) if op.norm is Norm.NONE else rng.uniform(0.5, 2, op.K)
    return {
        "X": rng.normal(size=(tokens, op.K)).astype(np.float32),
        "W": _weights(rng, op),
        "w_scale": rng.uniform(0.01, 2, op.N).astype(np.float32),
        "bias": rng.normal(0, 3, op.N).astype(np.float32),
        "gain": gain.astype(np.float32),
    }


def _powers(rng: np.random.Generator, op: TernaryLinear) -> dict[str, Array]:
    """Whole numbers, and scales that are powers of two: float sums are exact in any order."""
    return {
        "X": rng.integers(-128, 128, (3, op.K)).astype(np.float32),
        "W": _weights(rng, op),
        "w_scale": (2.0 ** rng.integers(-2, 3, (op.groups, op.N))).astype(np.float32),
        "bias": np.zeros(op.N, np.float32),
    }
