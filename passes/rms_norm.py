"""Recognise a root-mean-square norm over the last axis, in float32.

    y = x / sqrt(mean(x * x) + eps) * gain

Written out (as torch exports it: Pow, ReduceMean, Add, Sqrt, Reciprocal, Mul, Mul; TensorFlow multiplies
the gain with the reciprocal first, and has a GlobalAveragePool for the mean), or as one op:
RMSNormalization of ONNX, SimplifiedLayerNormalization of onnxruntime. Source: arXiv 1910.07467.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from bitcc import ops
from bitcc.passes.normal_form import inverted, operands, producer, same, skip

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants

_MAX_EPS = 1e30  # what the op library reads
_OPS = frozenset(
    {
        ("", "RMSNormalization"),
        ("", "SimplifiedLayerNormalization"),
        ("com.microsoft", "SimplifiedLayerNormalization"),
    }
)


@dataclass(frozen=True)
class RmsNorm:
    """A matched norm.

    Attributes:
        x: What is normalised, [..., K].
        eps: What is added to the mean square.
        gain: float32 [1] or [K].
    """

    x: ir.Value
    eps: float
    gain: NDArray[np.float32]


def match_rms_norm(value: ir.Value, k: int, constants: Constants) -> RmsNorm | None:
    """The norm that makes ``value`` [..., k], or None."""
    found = _one_op(value, k, constants) or _written_out(value, k, constants)
    if found is None or {value.dtype, found.x.dtype} != {ir.DataType.FLOAT}:
        return None
    finite = np.isfinite(found.gain).all() and 0 <= found.eps <= _MAX_EPS
    return found if finite else None


def _one_op(value: ir.Value, k: int, constants: Constants) -> RmsNorm | None:
    node = value.producer()
    if node is None or (node.domain, node.op_type) not in _OPS or len(node.inputs) != 2:
        return None
    x, scale = node.inputs
    rank = None if value.shape is None else value.shape.rank()
    axis = node.attributes.get_int("axis", -1)
    gain = _gain(scale, k, constants)
    if x is None or gain is None or axis not in {-1, None if rank is None else rank - 1}:
        return None
    if node.attributes.get_int("stash_type", 1) != 1 or any(o.uses() for o in node.outputs[1:]):
        return None
    return RmsNorm(x, node.attributes.get_float("epsilon", 1e-5), gain)


def _written_out(value: ir.Value, k: int, constants: Constants) -> RmsNorm | None:
    value = skip(value, constants)
    times = producer(value, "Mul")
    for inner, factor in () if times is None else operands(times):
        gain = _gain(factor, k, constants)
        if gain is not None:
            return _divided(skip(inner, constants), gain, constants)
        if (found := _scaled(inner, skip(factor, constants), k, constants)) is not None:
            return found
    return _divided(value, ops.ONE, constants)


def _scaled(x: ir.Value, factor: ir.Value, k: int, constants: Constants) -> RmsNorm | None:
    """``x * (gain * (1 / root))``, which TensorFlow's norms are, but for the last place."""
    node = producer(factor, "Mul", "Div")
    for first, second in () if node is None else operands(node):
        gain, divisor = _gain(first, k, constants), skip(second, constants)
        root = divisor if producer(factor, "Div") is not None else inverted(divisor, constants)
        eps = None if gain is None or root is None else _root(root, x, constants)
        if gain is not None and eps is not None:
            return RmsNorm(x, eps, gain)
    return None


def _divided(value: ir.Value, gain: NDArray[np.float32], constants: Constants) -> RmsNorm | None:
    """``x / root`` or ``x * (1 / root)``."""
    node = producer(value, "Mul", "Div")
    if node is None:
        return None
    for x, other in operands(node):
        divisor = skip(other, constants)
        root = divisor if node.op_type == "Div" else inverted(divisor, constants)
        eps = None if root is None else _root(root, x, constants)
        if eps is not None:
            return RmsNorm(x, eps, gain)
    return None


def _root(root: ir.Value, x: ir.Value, constants: Constants) -> float | None:
    """Eps of ``sqrt(mean(x * x) + eps)``."""
    sqrt = producer(root, "Sqrt")
    if sqrt is None or sqrt.inputs[0] is None:
        return None
    add = producer(skip(sqrt.inputs[0], constants), "Add")
    for mean, eps in () if add is None else operands(add):
        number = constants.scalar(eps)
        if number is not None and _is_mean_square(skip(mean, constants), x, constants):
            return number
    return None


def _is_mean_square(value: ir.Value, x: ir.Value, constants: Constants) -> bool:
    mean = producer(value, "ReduceMean", "GlobalAveragePool")
    if mean is None or mean.inputs[0] is None or mean.attributes.get_int("keepdims", 1) != 1:
        return False
    axes = list(mean.attributes.get_ints("axes") or ())
    if len(mean.inputs) > 1 and mean.inputs[1] in constants and mean.inputs[1] is not None:
        axes = [int(axis) for axis in constants.array(mean.inputs[1]).reshape(-1)]
    rank = None if x.shape is None else x.shape.rank()
    if mean.op_type == "GlobalAveragePool":  # over all axes behind the second one
        axes = list(range(2, rank or 2))
    if axes != [-1] and (rank is None or axes != [rank - 1]):
        return False
    square = producer(skip(mean.inputs[0], constants), "Pow", "Mul")
    if square is None or not same(square.inputs[0], x, constants):
        return False
    if square.op_type == "Pow":
        return constants.scalar(square.inputs[1]) == 2.0
    return same(square.inputs[1], x, constants)


def _gain(value: ir.Value | None, k: int, constants: Constants) -> NDArray[np.float32] | None:
    """A constant as float32 [1] or [k]; None if it is neither."""
    if value is None or value not in constants:
        return None
    array = constants.array(value)
    if array.dtype != np.float32 or (array.size != 1 and array.shape[-1:] != (array.size,)):
        return None
    return array.reshape(-1) if array.size in {1, k} else None
