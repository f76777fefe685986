"""The custom op ``bitcc::BitLinear``, declared once: attributes, executable spec and function body.

    Y = epilogue(int_matmul(quantize(norm(X)), W))

Inputs: X [..., K] float32, float16 or bfloat16; W uint8, packed (bitcc.formats); w_scale float32 [1] or
[N]; bias float32 [1] or [N] (zero when the layer has none); gain float32 [1] or [K] (one when it has no
norm). Output: Y [..., N], of the type of X.

Everything is computed in float32, one rounding for each operation, and the accumulators are exact. ``r``
rounds to ``act_type``, in which the graph computed its quantizer:

    x   = (X * (1 / sqrt(float32(mean of X * X in float64) + norm_eps))) * gain     with a norm, else X
    c   = r(max(max|x|, act_floor) + act_eps)                  for each token, or once for all tokens of X
    m, d, t = a, 1, 1       where a = r(qmax * r(1 / c)) or r(qmax / c) or r(1 / r(c / qmax))
              1, s, 1       where s = r(c / qmax) or r(c * r(1 / qmax)), or r(r(c / qmax) + act_eps)
                            with c without act_eps
              qmax, c, 1    or 1, c, qmax
    q   = clamp(round_half_even(r(r(r(x * m) / d) * t)), act_min, act_max)
    inv = d / (m * t)
    acc = sum over K of q * w                                  int32
    y   = acc * (inv * w_scale) + bias    or, bias_before_scale,   (acc + bias) * (inv * w_scale) + 0

A token gives NaN where inv is not finite, as it is if max|x| is not, and where x * m / d is NaN, which is
0 * infinity or 0 / 0; the others are as ever.

The mean of squares is summed in float64, so that its float32 is the same in whatever order it is summed, but
for one token in tens of millions. Whatever has a choice is an int: a function body can compare no strings.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import ml_dtypes
import numpy as np

from bitcc import formats

if TYPE_CHECKING:
    from numpy.typing import NDArray

DOMAIN = "bitcc"
OPSET = 1
BIT_LINEAR = "BitLinear"
ONE = np.ones(1, np.float32)  # the gain of a layer without a norm
ONE.flags.writeable = False
MAX_K = 65536  # |acc| <= 128 * K stays below 2^24: its float32 is exact


class ActScale(enum.IntEnum):
    """How the activation scale is computed; each rounds differently in the last place."""

    RECIPROCAL = 0
    """a = qmax * (1 / c), codes round(x * a): what torch writes for ``127 / c``."""
    DIVIDE = 1
    """a = qmax / c, codes round(x * a)."""
    QUOTIENT = 2
    """s = c / qmax, codes round(x / s)."""
    PRODUCT = 3
    """Codes round((x * qmax) / c): what torch writes for ``x * 127 / c``, as in BitNet's first version."""
    STEP_PRODUCT = 4
    """s = c * (1 / qmax), codes round(x / s): what TensorFlow's optimiser makes of ``x / (c / 127)``."""
    NORMALIZED = 5
    """Codes round((x / c) * qmax)."""
    STEP_SUM = 6
    """s = c / qmax + act_eps, codes round(x / s), where ``act_eps`` is not added to max|x|."""
    STEP_RECIPROCAL = 7
    """a = 1 / (c / qmax), codes round(x * a)."""


class ActType(enum.IntEnum):
    """The type to which each result of the quantizer is rounded; the numbers are ONNX's."""

    FLOAT = 1
    FLOAT16 = 10
    BFLOAT16 = 16


class Norm(enum.IntEnum):
    """What is done to each token before it is quantised."""

    NONE = 0
    RMS = 1
    """Division by the root of its mean square, and multiplication by ``gain``."""


class ActScope(enum.IntEnum):
    """What has an activation scale of its own."""

    TOKEN = 0
    """Each row of K."""
    TENSOR = 1
    """All of X: what is computed together shares a scale, so that a batch is not its tokens one by one."""


@dataclass(frozen=True)
class BitLinear:
    """The attributes of one ``bitcc::BitLinear`` node; every one is always written.

    Attributes:
        K: Inputs, 1 to 65536.
        N: Outputs, at least 1.
        act_scale: How the activation scale is computed.
        act_scope: What has a scale of its own.
        act_type: The type in which the scale and x * scale are rounded.
        act_floor: Lower bound of max|x|, a number of that type.
        act_eps: What is added to max|x|, or to the step with ``STEP_SUM``, a number of that type.
        qmax: What max|x| maps to, 1 to 128: mostly 127, 127.5 or 128.
        act_min: Lower bound of the activation codes.
        act_max: Upper bound of the activation codes.
        bias_before_scale: 1 if the bias is added to the accumulator and scaled with it.
        weight_format: Name of a format of ``bitcc.formats``.
        layout_version: Version of its layout.
        norm: What is done to the tokens first.
        norm_eps: What is added to the mean square.
    """

    K: int
    N: int
    act_scale: ActScale = ActScale.RECIPROCAL
    act_scope: ActScope = ActScope.TOKEN
    act_type: ActType = ActType.FLOAT
    act_floor: float = 1e-5
    act_eps: float = 0.0
    qmax: float = 127.0
    act_min: float = -128.0
    act_max: float = 127.0
    bias_before_scale: int = 0
    weight_format: str = "t2"
    layout_version: int = 1
    norm: Norm = Norm.NONE
    norm_eps: float = 0.0

    def attributes(self) -> dict[str, int | float | str]:
        """The node attributes, as plain ints, floats and strings."""
        return {k: int(v) if isinstance(v, enum.IntEnum) else v for k, v in asdict(self).items()}

    @property
    def activation(self) -> str:
        """The quantizer in a word, as reports write it."""
        return f"int8_{self.act_scope.name.lower()}"


def normalize(x: NDArray[np.float32], gain: NDArray[np.float32], op: BitLinear) -> NDArray[np.float32]:
    """The executable spec of the norm: float32 [M, K] and float32 [1] or [K] -> float32 [M, K]."""
    if op.norm is Norm.NONE:
        return x
    with np.errstate(all="ignore"):
        mean = np.mean(np.square(x, dtype=np.float64), axis=1, keepdims=True).astype(np.float32)
        inverse = np.float32(1) / np.sqrt(mean + np.float32(op.norm_eps))
        return np.asarray((x * inverse) * gain)


def quantize(x: NDArray[np.float32], op: BitLinear) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The executable spec of the activation quantizer.

    Args:
        x: float32 [M, K], all tokens of a call.
        op: Which quantizer.

    Returns:
        Codes, int32 [M, K], and the inverse scale, float32 [M, 1] (NaN for a poisoned token).
    """
    nan = np.float32(np.nan)
    axis = 1 if op.act_scope is ActScope.TOKEN else None
    with np.errstate(all="ignore"):
        largest = np.max(np.abs(x), axis=axis, keepdims=True, initial=0)
        eps = np.float32(0 if op.act_scale is ActScale.STEP_SUM else op.act_eps)
        bounded = _rounded(np.maximum(largest, np.float32(op.act_floor)) + eps, op)
        factor, divisor, after = _scaling(bounded, op)
        inverse = divisor / (factor * after)
        scaled = _rounded(_rounded(_rounded(x * factor, op) / divisor, op) * after, op)
        poisoned = ~np.isfinite(inverse) | np.isnan(scaled).any(axis=1, keepdims=True)
        rounded = np.clip(np.rint(scaled), np.float32(op.act_min), np.float32(op.act_max))
        codes = np.where(poisoned, np.float32(0), rounded).astype(np.int32)
    return codes, np.where(poisoned, nan, inverse)


_Column: TypeAlias = "NDArray[np.float32]"


def _scaling(bounded: _Column, op: BitLinear) -> tuple[_Column, _Column, _Column]:
    """(m, d, t) of the bounded maximum of each token, all float32 [M, 1]."""
    one, qmax = np.ones_like(bounded), np.full_like(bounded, op.qmax)
    factor = divisor = after = one
    match op.act_scale:
        case ActScale.RECIPROCAL:
            factor = _rounded(_rounded(one / bounded, op) * qmax, op)
        case ActScale.DIVIDE:
            factor = _rounded(qmax / bounded, op)
        case ActScale.QUOTIENT:
            divisor = _rounded(bounded / qmax, op)
        case ActScale.PRODUCT:
            factor, divisor = qmax, bounded
        case ActScale.STEP_PRODUCT:
            divisor = _rounded(bounded * _rounded(one / qmax, op), op)
        case ActScale.NORMALIZED:
            divisor, after = bounded, qmax
        case ActScale.STEP_SUM:
            divisor = _rounded(_rounded(bounded / qmax, op) + np.float32(op.act_eps), op)
        case ActScale.STEP_RECIPROCAL:
            factor = _rounded(one / _rounded(bounded / qmax, op), op)
    return factor, divisor, after


_TYPES = {ActType.FLOAT16: np.dtype(np.float16), ActType.BFLOAT16: np.dtype(ml_dtypes.bfloat16)}


def _rounded(value: NDArray[np.float32], op: BitLinear) -> NDArray[np.float32]:
    dtype = _TYPES.get(op.act_type)
    return value if dtype is None else value.astype(dtype).astype(np.float32)


def accumulate(codes: NDArray[np.int32], weights: NDArray[np.int8]) -> NDArray[np.int32]:
    """int32 [M, K] codes and int8 [N, K] weights -> exact int32 [M, N] accumulators.

    Computed in float32, where it is exact: every partial sum is an integer below 2^24.
    """
    product: NDArray[np.float32] = codes.astype(np.float32) @ weights.T.astype(np.float32)
    return product.astype(np.int32)


def reference(
    x: NDArray[Any],
    packed: NDArray[np.uint8],
    w_scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    op: BitLinear,
    *,
    gain: NDArray[np.float32] = ONE,
) -> NDArray[Any]:
    """The executable spec of the op.

    Args:
        x: [..., K] float32, float16 or bfloat16.
        packed: W in the layout of ``op.weight_format``.
        w_scale: float32 [1] or [N].
        bias: float32 [1] or [N].
        op: The attributes.
        gain: float32 [1] or [K].

    Returns:
        [..., N], of the type of ``x``.

    Raises:
        PackedWeightError: ``packed`` is not what the layout allows.
    """
    weights = formats.get(op.weight_format, op.layout_version).unpack(packed, op.N, op.K)
    normalized = normalize(x.reshape(-1, op.K).astype(np.float32), gain, op)
    codes, inverse = quantize(normalized, op)
    acc = accumulate(codes, weights).astype(np.float32)
    with np.errstate(all="ignore"):
        before, after = (bias, np.float32(0)) if op.bias_before_scale else (np.float32(0), bias)
        y = (acc + before) * (inverse * w_scale) + after
        return y.astype(x.dtype).reshape(*x.shape[:-1], op.N)
