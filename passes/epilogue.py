"""Read what follows a matrix product: the scales and the bias that belong to the layer.

While the graph is followed, the tensor at hand is  y = (acc * gain + before) * inv + after, where ``inv``,
the inverse activation scale, is there from the start if the codes were dequantised before the product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc.ops import ActScale
from bitcc.passes._refused import Refused
from bitcc.passes.normal_form import producer, same, skip

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.passes.activation import Activation
    from bitcc.passes.constants import Constants
    from bitcc.passes.matmul import Product

    Row = NDArray[np.float64]

_DEPTH = 8  # of the arithmetic of scales


@dataclass(frozen=True)
class Epilogue:
    """The output of a layer in terms of its accumulators.

    Attributes:
        y: The value that the layer computes, [..., N].
        gain: float64 [1] or [N].
        before: float64 [1] or [N], added to ``acc * gain`` and scaled with it.
        after: float64 [1] or [N], added at the end.
        rescaled: Whether the inverse activation scale has been applied.
    """

    y: ir.Value
    gain: Row
    before: Row
    after: Row
    rescaled: bool

    def scaled(self, factor: Row, y: ir.Value) -> Epilogue:
        """Times a constant."""
        return replace(
            self,
            y=y,
            gain=self.gain * factor,
            before=self.before * factor,
            after=self.after * factor,
        )


@dataclass(frozen=True)
class _Reader:
    """What the steps of ``read_epilogue`` have in common: the layer's quantizer, its N, the constants."""

    activation: Activation | None
    n: int
    constants: Constants


def read_epilogue(product: Product, activation: Activation | None, n: int, constants: Constants) -> Epilogue:
    """Follow the output of the product as far as it is the layer's own arithmetic.

    Args:
        product: The matrix product.
        activation: The quantizer of its input; None where the activations are float.
        n: Outputs of the layer.
        constants: Of the model.

    Raises:
        Refused: the activation scale is never divided out.
    """
    reader = _Reader(activation, n, constants)
    zero = np.zeros(1)
    start = product.node.outputs[0]
    state = Epilogue(
        start, np.array([product.alpha]), zero, zero, activation is None or activation.dequantised
    )
    if product.bias is not None and product.beta:
        bias = _row(reader, product.bias, start)
        if bias is None:
            raise Refused("the bias of the Gemm is not one constant row")
        state = _added(state, bias * product.beta, start)
    reached = state  # a last Identity or Cast belongs to what reads the layer
    while (following := _next(reader, reached)) is not None:
        reached = following
        if producer(reached.y, "Identity", "Cast") is None:
            state = reached
    if not state.rescaled:
        raise Refused("the product of codes is not divided by the activation scale")
    return state


def _added(state: Epilogue, bias: Row, y: ir.Value) -> Epilogue:
    if state.rescaled:
        return replace(state, y=y, after=state.after + bias)
    return replace(state, y=y, before=state.before + bias)


def _next(reader: _Reader, state: Epilogue) -> Epilogue | None:
    """The state behind the only consumer of ``state.y``, or None if that is not the layer's."""
    uses = list(state.y.uses())
    if len(uses) != 1 or state.y.is_graph_output() or uses[0].node.graph is not state.y.graph:
        return None  # the last: it is read in the body of an If, Loop or Scan
    node, index = uses[0]
    y = node.outputs[0]
    if producer(y, "Identity", "Cast") is not None:
        transparent = skip(y, reader.constants) is skip(state.y, reader.constants)
        return replace(state, y=y) if transparent else None
    if producer(y, "Add", "Mul", "Div") is None or len(node.inputs) != 2:
        return None
    other = node.inputs[1 - index]
    if other is None or (node.op_type == "Div" and index == 1):
        return None
    if node.op_type == "Add":
        return _biased(reader, state, other, y)
    return _multiplied(reader, state, other, y, power=-1 if node.op_type == "Div" else 1)


def _biased(reader: _Reader, state: Epilogue, other: ir.Value, y: ir.Value) -> Epilogue | None:
    bias = _row(reader, other, state.y)
    both = state.rescaled and bool(state.before.any())  # the op has one bias
    return None if bias is None or both else _added(state, bias, y)


def _multiplied(
    reader: _Reader, state: Epilogue, factor: ir.Value, y: ir.Value, *, power: int
) -> Epilogue | None:
    """``state.y`` times ``factor`` to the power 1 or -1."""
    constant = _row(reader, factor, state.y)
    if constant is not None:
        return state.scaled(constant**power, y) if np.all(constant != 0) else None
    activation = reader.activation
    if activation is None or state.rescaled:
        return None
    parts = _scale_factor(reader, factor, state.y, _DEPTH)
    if parts is None:
        return None
    scale_power, constant = parts
    wanted = 1 if activation.form is ActScale.QUOTIENT else -1
    if scale_power * power != wanted or not np.all(constant != 0):
        return None
    return replace(state.scaled(constant**power, y), rescaled=True)


def _scale_factor(reader: _Reader, value: ir.Value, y: ir.Value, depth: int) -> tuple[int, Row] | None:
    """``value`` as activation_scale^power * constant, None if it is not that."""
    if reader.activation is not None and same(value, reader.activation.scale, reader.constants):
        return 1, np.ones(1)
    constant = _row(reader, value, y)
    if constant is not None:
        return 0, constant
    node = producer(skip(value, reader.constants), "Mul", "Div", "Reciprocal")
    if node is None or depth == 0:
        return None
    factors = [_scale_factor(reader, v, y, depth - 1) for v in node.inputs if v is not None]
    known = [factor for factor in factors if factor is not None]
    if len(known) != len(node.inputs):
        return None
    power, constant = known[0]
    if node.op_type == "Reciprocal":
        return -power, 1 / constant
    sign = -1 if node.op_type == "Div" else 1
    return power + sign * known[1][0], constant * known[1][1] ** sign


def _row(reader: _Reader, value: ir.Value, y: ir.Value | None) -> Row | None:
    """A constant as float64 [1] or [N], None if it differs over the tokens or would widen ``y``."""
    if value not in reader.constants:
        return None
    if value.shape is not None and value.shape.is_static() and np.prod(value.shape.numpy()) > reader.n:
        return None
    array: NDArray[Any] = reader.constants.array(value)
    rank = 1 if y is None or y.shape is None else max(y.shape.rank(), 1)
    is_row = array.size == 1 or (array.size == reader.n and array.shape[-1] == reader.n)
    return array.reshape(-1).astype(np.float64) if is_row and array.ndim <= rank else None
