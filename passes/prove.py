"""Check one rewrite before it is made, in two parts that together cover all of it.

1. Every weight: the packed bytes hold, at the scale of the layer, what the original's nodes compute
   (``prove_weights``).
2. The arithmetic: the original nodes between the layer's input and its output run in onnxruntime, without
   optimisations, against the numpy spec of the op, with random and adversarial tokens, all rows, all scales
   and the whole bias. The weights are an input of both, ternary codes at the scale of the layer. None of
   these nodes knows how many columns there are, so that a few of them prove the arithmetic of all; where one
   does (a Reshape, an Expand, MatMulNBits), the declared shape is run, with all columns.

Half-precision layers are compared in float32, with the weights as half precision rounded them: there the
original's rounded scales and codes are noise of some percent, and onnxruntime cannot run bfloat16 at all.
So are layers whose float32 weights carry the noise of half precision around their levels. How far these
weights are from the original's is measured, and told beside the error of the arithmetic.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx_ir as ir

from bitcc import formats, ops, ternary_linear
from bitcc.passes._refused import Refused
from bitcc.passes.between import HALVES, back_from_y, between, in_half_precision
from bitcc.passes.finite import of_numbers
from bitcc.passes.layout import inverse, transposed, transposition
from bitcc.passes.matmul import as_read
from bitcc.passes.prove_weights import check_nearest, weight_error
from bitcc.passes.trial_tokens import not_finite, shapes_in_front, tokens, with_copies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants
    from bitcc.passes.layer import Layer
    from bitcc.passes.runner import Declared, Run, Runner

    Array = NDArray[Any]

TOLERANCE = 1e-5
_LARGER = np.float32(4)  # than what is quantised: what a residue is of, which must not matter
_LOST = 1e30  # outputs that are no smaller are as good as infinite
_HALF_TYPES = frozenset(h.numpy() for h in HALVES)
_COLUMNS = 64  # that are run, if the layer has more; at least one for each scale of a row


class Proof(NamedTuple):
    """How far a layer is from what it was.

    Attributes:
        error: The largest difference: of weights relative to the scale or the norm of a row, of outputs
            relative to max|y| of a token. NaN if one of them is.
        weight_error: Of weights that need only be nearest to the original's, the largest norm of a row of
            the difference relative to that of the row; None for others, which are in ``error``.
    """

    error: float
    weight_error: float | None


class _Trial(NamedTuple):
    """The layer with other weights and no more columns than it takes.

    Attributes:
        op: As that of the layer.
        packed: Its weights.
        weight: What the original reads in place of its own, float32; nothing if it reads its own.
    """

    op: ops.BitLinear | ternary_linear.TernaryLinear
    packed: formats.Bytes
    weight: dict[ir.Value, Array]


def prove_layer(layer: Layer, packed: formats.Bytes, constants: Constants, runner: Runner) -> Proof:
    """How far the layer will be from what it was.

    Raises:
        Refused: onnxruntime cannot run the original nodes, so that nothing is proven, or they use
            something else of the graph, or the packed weights are others.
    """
    if in_half_precision(layer, constants) or layer.ternary.noisy:
        check_nearest(layer, packed, constants)
        snapped = weight_error(layer, packed, constants, runner)
        return Proof(_arithmetic_error(layer, packed, constants, runner), snapped)
    weights = weight_error(layer, packed, constants, runner)
    error = np.maximum(weights, _arithmetic_error(layer, packed, constants, runner))  # max() would drop NaN
    return Proof(float(error), None)


def _arithmetic_error(layer: Layer, packed: formats.Bytes, constants: Constants, runner: Runner) -> float:
    if not layer.reshapes:
        with suppress(Refused):  # a node may know the declared shape
            return _error_of(layer, packed, constants, runner, as_declared=False)
    return _error_of(layer, packed, constants, runner, as_declared=True)


def _error_of(
    layer: Layer, packed: formats.Bytes, constants: Constants, runner: Runner, *, as_declared: bool
) -> float:
    keeps_weight = layer.node.op_type == "MatMulNBits"  # which says how many columns there are
    trial = _Trial(layer.op, packed, {}) if keeps_weight else _trial(layer, constants, whole=as_declared)
    shapes = shapes_in_front(layer, constants) if as_declared else {}
    run, fed = _original(layer, {**trial.weight, **shapes}, constants, runner)
    worst = 0.0
    ordinary = tokens(layer, trial.op.K, as_declared=as_declared)
    lost = not_finite(layer, trial.op.K, as_declared=as_declared)
    for x in chain(ordinary, lost if _replaces_infinities(layer, constants) else ()):
        original = transposed(x, inverse(layer.x_layout))
        bases = dict.fromkeys(layer.bases, _LARGER * original)
        result = run({**fed, **bases, **with_copies(layer, original)})
        want = transposed(result.astype(np.float64), inverse(layer.y_layout))
        got = _computed(layer, trial, x).astype(np.float64)
        if layer.reshapes and not layer.restored:
            got = _reshaped(got, layer.reshapes, want)
        if layer.product.y_shape:
            want = want.reshape(got.shape)
        if want.shape != got.shape:
            return float("inf")
        if np.isfinite(x).all():
            worst = float(np.maximum(worst, difference(got, want)))
        elif _is_rescued(got, want):
            return float("inf")
    return worst


def _replaces_infinities(layer: Layer, constants: Constants) -> bool:
    """Whether a node of the layer puts something else in the place of NaN or infinity."""
    return any(of_numbers(node, constants) is not None for node in back_from_y(layer, constants))


def _is_rescued(got: Array, want: Array) -> bool:
    """Whether a token that the op loses is one that the original does not lose."""
    lost = ~(np.abs(want) < _LOST)  # written so that NaN is lost
    return bool((~np.isfinite(got).all(axis=-1) & ~lost.any(axis=-1)).any())


def _reshaped(got: Array, reshapes: Sequence[ir.Node], want: Array) -> Array:
    """What the op makes of tokens that were moved and given another shape."""
    x = reshapes[-1].outputs[0]
    if (moved := transposition(reshapes[0].outputs[0])) is not None:
        got = transposed(got, moved[1])
    if x.shape is None or x.shape.rank() != want.ndim:
        reason = "its input is reshaped, and its output has another rank, or one that is not known"
        raise Refused(reason, fix="quantise behind the Reshape")
    return got.reshape(want.shape) if got.size == want.size else got


def _trial(layer: Layer, constants: Constants, *, whole: bool) -> _Trial:
    scale, k = layer.ternary.scale, layer.op.K
    columns = k if whole else min(k, scale.shape[1] * -(-_COLUMNS // scale.shape[1]))
    rng = np.random.default_rng(layer.op.N * 65537 + k)
    codes = _codes(rng, (columns, layer.op.N)).T  # as most graphs read them
    op = replace(layer.op, K=columns)
    if isinstance(op, ternary_linear.TernaryLinear):
        op = replace(op, group_size=max(1, op.group_size * columns // k))
    packed = formats.get(op.weight_format, op.layout_version).pack(codes)
    dense = codes * np.repeat(scale, columns // scale.shape[1], axis=1)
    weight = as_read(layer.product, dense, constants)
    if layer.product.is_integer and layer.product.weight.dtype is not None:
        weight = weight.astype(layer.product.weight.dtype.numpy())
    return _Trial(op, packed, {layer.product.weight: weight})


def _codes(rng: np.random.Generator, shape: tuple[int, int]) -> formats.Int8:
    """Random ones, from bytes: numpy draws small integers slowly."""
    drawn = np.frombuffer(rng.bytes(math.prod(shape)), np.uint8).reshape(shape)
    return (drawn // np.uint8(86)).view(np.int8) - np.int8(1)


def _original(
    layer: Layer, given: dict[ir.Value, Array], constants: Constants, runner: Runner
) -> tuple[Run, dict[ir.Value, Array]]:
    """What runs the original nodes, and what it is fed besides tokens: what is given, and constants.

    With the nodes that compute those if onnxruntime takes them; otherwise with their values.

    Raises:
        Refused: onnxruntime does not run them; so does what is returned.
    """
    half = in_half_precision(layer, constants)
    of_tokens = (layer.x, *layer.bases, *(copy.value for copy in layer.copies))
    for loose in (True,) if half else (False, True):
        nodes, leaves = between(layer, given, constants, loose=loose)
        if not loose and any(_is_foreign(v) for v in leaves if v not in given):
            continue
        fed = {v: given[v] if v in given else constants.array(v) for v in leaves if v not in of_tokens}
        if half:
            fed = {v: a.astype(np.float32) if a.dtype in _HALF_TYPES else a for v, a in fed.items()}
        types: dict[ir.Value, Declared] = dict.fromkeys(of_tokens, (ir.DataType.FLOAT, None))
        types |= {v: (ir.DataType.from_numpy(a.dtype), a.shape) for v, a in fed.items()}
        try:
            return runner.prepare(nodes, types, layer.y, widened=half), fed
        except Refused:
            if loose:
                raise
    raise AssertionError  # the last turn returns or raises


def _computed(layer: Layer, trial: _Trial, x: Array) -> Array:
    """What the op gives, by its spec."""
    if isinstance(trial.op, ops.BitLinear):
        op = replace(trial.op, act_type=ops.ActType.FLOAT)
        return ops.reference(x, trial.packed, layer.w_scale, layer.bias, op)
    return ternary_linear.reference(x, trial.packed, layer.w_scale, layer.bias, trial.op)


def difference(got: Array, want: Array) -> float:
    """The largest over the tokens of max|got - want| / max|want|; NaN where only one of them is NaN."""
    both = np.isnan(got) & np.isnan(want)
    got, want = np.where(both, 0, got), np.where(both, 0, want)
    scale = np.max(np.abs(want), axis=-1, keepdims=True)
    with np.errstate(all="ignore"):  # of infinite outputs it is NaN, which is no proof
        return float(np.max(np.abs(got - want) / np.where(scale == 0, 1, scale), initial=0.0))


def _is_foreign(value: ir.Value) -> bool:
    """Whether numpy does not know its type, such as bfloat16 or int4: onnxruntime takes no such array."""
    return value.dtype is not None and value.dtype.numpy().kind == "V"
