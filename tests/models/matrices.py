"""Matrices that are not ternary, or ternary and no layer, with the reason that is given for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from models.building import build
from models.weights import HEAD, K, N, latent, quantized

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Array = NDArray[Any]

RNG = np.random.default_rng(3)
SHAPE = (N, K)
CODES, SCALE = quantized(latent())
TERNARY = CODES * np.float32(SCALE)


def with_weight(weight: Array, spelling: str = "dynamo_folded_bias") -> onnx.ModelProto:
    """A layer with that dense weight [n, k], by default behind a proper activation quantizer."""
    n, k = weight.shape
    values = {
        "fc.dense": np.ascontiguousarray(weight.T),
        "fc.bias": np.ones(n, np.float32),
        "head.weight": RNG.standard_normal((n, HEAD)).astype(np.float32),
    }
    sizes = {"[$rows, 100]": f"[$rows, {k}]"}
    return build(spelling, values=values, replace=sizes)


def changed(weight: Array, index: Any, value: float) -> Array:
    """A copy with another value there."""
    copy = weight.copy()
    copy[index] = value
    return copy


def levels(*values: float, shape: tuple[int, int] = SHAPE) -> Array:
    """Weights that are drawn from these levels, in units of the scale."""
    return (RNG.choice(values, shape) * SCALE).astype(np.float32)


def hadamard(size: int) -> Array:
    """Sylvester's construction; the size is a power of two."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def bf16(matrix: Array) -> Array:
    """Rounded to bfloat16."""
    return matrix.astype(ml_dtypes.bfloat16).astype(np.float32)


GAUSSIAN = RNG.standard_normal(SHAPE).astype(np.float32)
DENSE = "the weights are dense: no scale makes them -1, 0 and 1"
VALUES: dict[str, tuple[Array, str]] = {
    "dense": (GAUSSIAN, DENSE),
    "dense, of low precision": (bf16(GAUSSIAN), DENSE),
    "int8": (levels(*range(-127, 128)), DENSE),
    "int4": (levels(*range(-7, 8)), DENSE),
    "int4 of groups": (
        RNG.integers(-7, 8, (60, 128)) * np.repeat(RNG.uniform(1, 2, (60, 8)), 16, axis=1).astype(np.float32),
        DENSE,
    ),
    "2 bits, 4 levels": (levels(-1.5, -0.5, 0.5, 1.5), DENSE),
    "5 levels": (levels(-2, -1, 0, 1, 2), DENSE),
    "0, s and 2s": (levels(0, 1, 2), DENSE),
    "two ternary planes": (levels(-1.25, -1, -0.75, -0.25, 0, 0.25, 0.75, 1, 1.25), DENSE),
    "asymmetric": (levels(-1, 0, 1.3), DENSE + "; values are 0.1"),
    "shifted": (levels(-0.9, 0.1, 1.1), DENSE),
    "half sparse": (np.where(RNG.random(SHAPE) < 0.5, 0, GAUSSIAN).astype(np.float32), DENSE),
    "one real value a row": (np.where(np.eye(*SHAPE) > 0, GAUSSIAN, 0), DENSE),
    "one real value a group": (
        np.where(np.arange(256) % 16 == 3, RNG.standard_normal((60, 256)), 0).astype(np.float32),
        DENSE,
    ),
    "jitter": (
        (TERNARY * (1 + 0.002 * RNG.standard_normal(SHAPE))).astype(np.float32),
        DENSE + "; values are 0.00",
    ),
    "gain in the columns": (
        TERNARY * RNG.uniform(0.6, 1, K).astype(np.float32),
        DENSE + "; values are 0.",
    ),
    "all zero": (np.zeros(SHAPE, np.float32), "the weights are all zero"),
    "one outlier": (changed(TERNARY, (3, 5), 50 * SCALE), DENSE),
    "NaN": (changed(TERNARY, (3, 5), np.nan), "the weights hold NaN or infinity"),
    "infinity": (changed(TERNARY, (3, 5), -np.inf), "the weights hold NaN or infinity"),
    "few outputs": (TERNARY[:3], "[N, K] = [3, 100] is too small to be told from any other constant"),
    "few inputs": (TERNARY[:, :3], "[N, K] = [60, 3] is too small"),
    "few weights": (TERNARY[:7, :9], "[N, K] = [7, 9] is too small"),
    "many inputs": (np.tile(TERNARY[:16], 656), "K = 65600 is over the limit of 65536"),
}
ORTHOGONAL = "its rows are orthogonal to each other: a Hadamard or permutation matrix"
DIAGONALS = "its diagonals are constant: a difference or shift matrix"
PERMUTATION = np.eye(K, dtype=np.float32)[RNG.permutation(K)]
STRUCTURES: dict[str, tuple[Array, str]] = {
    "permutation": (PERMUTATION, "99% of the weights are zero: a selection or mask"),
    "signed permutation": (PERMUTATION[:16, :] @ np.diag(RNG.choice([-1, 1], K)), "99% of the"),
    "small signed permutation": (np.eye(16)[RNG.permutation(16)] * RNG.choice([-1, 1], (16, 1)), ORTHOGONAL),
    "one hot": (np.eye(*SHAPE, dtype=np.float32), "a selection or mask, not a BitLinear"),
    "hadamard": (hadamard(128), ORTHOGONAL),
    "some rows of a hadamard matrix": (hadamard(128)[5:50], ORTHOGONAL),
    "some columns of a hadamard matrix": (hadamard(128)[:, 5:50], ORTHOGONAL),
    "haar": (np.kron(np.eye(8), hadamard(4)), ORTHOGONAL),
    "one sign": (np.abs(TERNARY), "all nonzero weights have one sign: a mask"),
    "negative": (-np.abs(TERNARY), "all nonzero weights have one sign: a mask"),
    "causal mask": (np.tri(100, dtype=np.float32), "all nonzero weights have one sign: a mask"),
    "average": (np.full((16, 64), 1 / 64, np.float32), "all nonzero weights have one sign: a mask"),
    "pooling": (np.kron(np.eye(8), np.full((1, 8), 0.125)), "all nonzero weights have one sign: a mask"),
    "difference": (np.eye(16, 17, 1) - np.eye(16, 17), DIAGONALS),
    "large difference": (np.eye(99, 100, 1) - np.eye(99, 100), "98% of the weights are zero"),
    "circular difference": (np.roll(np.eye(16), 1, axis=1) - np.eye(16), DIAGONALS),
    "sobel": (np.eye(20, 22, 2) - np.eye(20, 22), DIAGONALS),
    "sign of the distance": (np.sign(np.subtract.outer(np.arange(60), np.arange(100))), DIAGONALS),
}
