"""Latent weights as training leaves them, and their codes computed without bitcc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

K, N, HEAD = 100, 60, 20
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_EPS = 1e-5
_MARGIN = 0.02  # how far from a rounding boundary, in units of the scale: half precision moves it by 0.004


def latent(
    kind: str = "gaussian", shape: tuple[int, int] = (N, K), seed: int = 0, group: int | None = None
) -> NDArray[np.float32]:
    """Latent weights [n, k], none so near to a rounding boundary that the order of a sum decides its code.

    Args:
        kind: ``gaussian``, ``uniform`` (untrained), ``heavy`` (Student's t3: noise in a straight-through
            sum), or ``outlier`` (one weight of a thousand deviations).
        shape: [n, k].
        seed: Of the generator.
        group: How many consecutive weights have one scale; default: all.
    """
    rng = np.random.default_rng(seed)
    draw = {"heavy": lambda: rng.standard_t(3, shape), "uniform": lambda: rng.uniform(-2, 2, shape)}
    drawn = draw.get(kind, lambda: rng.standard_normal(shape))()
    if kind == "outlier":
        drawn[5, 7] = 1000
    weight = (drawn * 0.02).reshape(-1, group or drawn.size)
    scale = np.abs(weight).mean(axis=1, keepdims=True)
    distance = np.abs(weight) / scale - 0.5
    weight = np.where(np.abs(distance) < 2 * _MARGIN, weight * 1.3, weight)
    return weight.reshape(shape).astype(np.float32)


def quantized(weight: Array) -> tuple[NDArray[np.int8], float]:
    """Absmean quantisation in float64: codes [n, k] and their scale."""
    wide = weight.astype(np.float64)
    scale = max(float(np.abs(wide).mean()), _EPS)
    assert np.abs(np.abs(wide) / scale - 0.5).min() > _MARGIN / 2
    return np.clip(np.rint(wide / scale), -1, 1).astype(np.int8), scale


def noisy(weight: Array) -> Array:
    """``w + (q * s - w)`` in the dtype of the weight: what a folded straight-through estimator leaves."""
    codes, scale = quantized(weight)
    dequantized = codes.astype(weight.dtype) * weight.dtype.type(scale)
    return np.asarray(weight + (dequantized - weight))


def arrays(weight: Array | None = None, half: str = "float16") -> dict[str, Array]:
    """A value for every name that a spelling leaves open."""
    weight = latent() if weight is None else weight
    rng = np.random.default_rng(1)
    n, k = weight.shape
    codes, scale = quantized(weight)
    single = {
        "fc.weight": weight,
        "fc.mean": np.float32(scale),
        "fc.dense": np.ascontiguousarray(noisy(weight).T),
        "fc.codes": np.ascontiguousarray(codes.T.astype(np.float32)),
        "fc.weight_scale": np.array([scale], np.float32),
        "fc.inverse_scale": np.array([1 / scale], np.float32),
        "fc.scale": np.float32(scale),
        "fc.int8": codes,
        "fc.row_scale": rng.uniform(0.5, 2, n).astype(np.float32),
        "fc.bias": rng.standard_normal(n).astype(np.float32),
        "norm.weight": rng.uniform(0.5, 2, k).astype(np.float32),
        "head.weight": rng.standard_normal((n, HEAD)).astype(np.float32),
        "head.bias": rng.standard_normal(HEAD).astype(np.float32),
    }
    return single | _other_codes(single) | _scattered(codes) | _halves(single, HALVES[half])


def _other_codes(single: dict[str, Array]) -> dict[str, Array]:
    """Codes [n, k] of quantizers that are not absmean, and what the graphs of such layers need."""
    weight = single["fc.weight"].astype(np.float64)
    row_mean = np.abs(weight).mean(axis=1, keepdims=True)
    return {
        "fc.row_codes": np.clip(np.rint(weight / row_mean), -1, 1),
        "fc.row_mean": row_mean[:, 0],
        "fc.signs": np.sign(weight),
        "fc.centered_signs": np.sign(weight - weight.mean()),
        "fc.one": np.ones(1),
        "fc.row_column": single["fc.row_scale"][:, None],
        "fc.inverse_row_scale": 1 / single["fc.row_scale"].astype(np.float64),
    }


def _scattered(codes: Array) -> dict[str, Array]:
    """Four codes a byte as transformers stores them: byte (i, k) holds the rows i, i + n/4, i + n/2, ..."""
    quarter = -(-codes.shape[0] // 4)
    padded = np.zeros((4 * quarter, codes.shape[1]), np.uint8)
    padded[: codes.shape[0]] = codes + 1
    planes = padded.reshape(4, quarter, -1)
    packed = planes[0] | planes[1] << 2 | planes[2] << 4 | planes[3] << 6
    indices = {
        f"fc.plane_{i}": np.arange(i * quarter, (i + 1) * quarter, dtype=np.int64)[:, None] for i in range(4)
    }
    return {"fc.packed": packed.astype(np.uint8), "fc.zeros": np.zeros_like(padded), **indices}


def _halves(single: dict[str, Array], dtype: np.dtype[Any]) -> dict[str, Array]:
    numbers = {str(i): np.float32(i) for i in (-128, -1, 1, 127)}
    names = {
        "weight": single["fc.weight"],
        "codes": single["fc.codes"],
        "dense": single["fc.codes"] * single["fc.scale"],
        "weight_scale": single["fc.weight_scale"],
        "bias": single["fc.bias"],
        "head": single["head.weight"],
        "eps": np.float32(_EPS),
        **numbers,
    }
    return {f"half.{name}": np.asarray(value).astype(dtype) for name, value in names.items()}
