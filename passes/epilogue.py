"""Read what follows a matrix product: the scales and the bias that belong to the layer.

While the graph is followed, the tensor at hand is  y = (acc * gain + before) * inv + after, where ``inv``,
the inverse activation scale, is there from the start if the codes were dequantised before the product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from bitcc.ops import ActScope
from bitcc.passes._refused import Refused
from bitcc.passes.between import HALVES
from bitcc.passes.constant_row import constant_row
from bitcc.passes.layout import (
    RESHAPES,
    Layout,
    columns_of_output,
    composed,
    minimal,
    same_tokens,
    tokens_align,
    transposition,
)
from bitcc.passes.normal_form import producer, skip
from bitcc.passes.scales import ONE, read_factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.passes.activation import Activation
    from bitcc.passes.constants import Constants
    from bitcc.passes.matmul import Product

    Row = NDArray[np.float64]

_BINARY = 2
_TRANSPARENT = ("Identity", "Cast", "Dropout")  # where they change nothing
_STATISTICS = 4  # of a BatchNormalization: scale, bias, mean and variance


@dataclass(frozen=True)
class Epilogue:
    """The output of a layer in terms of its accumulators.

    Attributes:
        y: The value that the layer computes.
        gain: float64 [1] or [N].
        before: float64 [1] or [N], added to ``acc * gain`` and scaled with it.
        after: float64 [1] or [N], added at the end.
        rescaled: Whether the inverse activation scale has been applied.
        layout: What brings [..., N] to ``y``.
        restored: Whether a Reshape has given ``y`` the tokens of the quantised tensor back.
    """

    y: ir.Value
    gain: Row
    before: Row
    after: Row
    rescaled: bool
    layout: Layout = ()
    restored: bool = False

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
    """What the steps of ``read_epilogue`` have in common.

    Attributes:
        activation: The layer's quantizer.
        scale_layout: What brings the quantised tensor, and its scale with it, to [..., K].
        x_layout: What brings the input of the layer to that.
        n: Outputs of the layer.
        constants: Of the model.
    """

    activation: Activation | None
    scale_layout: Layout
    x_layout: Layout
    n: int
    constants: Constants


def read_epilogue(
    product: Product,
    activation: Activation | None,
    n: int,
    constants: Constants,
    scale_layout: Layout | None = None,
) -> Epilogue:
    """Follow the output of the product as far as it is the layer's own arithmetic.

    Args:
        product: The matrix product.
        activation: The quantizer of its input; None where the activations are float.
        n: Outputs of the layer.
        constants: Of the model.
        scale_layout: What brings the quantised tensor to [..., K]; default: as the product's input.

    Raises:
        Refused: the activation scale is never divided out.
    """
    x_layout = product.x_layout
    reader = _Reader(activation, x_layout if scale_layout is None else scale_layout, x_layout, n, constants)
    zero = np.zeros(1)
    start = _sums(product, activation)
    rescaled = activation is None or activation.dequantised
    gain = np.array([product.alpha * (1.0 if activation is None else activation.gain)])
    state = Epilogue(start, gain, zero, zero, rescaled, product.y_layout)
    if product.bias is not None and product.beta:
        bias = constant_row(product.bias, n, constants, start, product.bias_axis)
        if bias is None:
            raise Refused(
                f"the bias of the {product.node.op_type} is not one constant row",
                fix="add it behind the product, as an Add of its own",
            )
        state = _added(state, bias * product.beta, start)
    reached = state  # a last Identity or Cast belongs to what reads the layer
    while not product.y_shape and (following := _next(reader, reached)) is not None:
        reached = following
        if producer(reached.y, *_TRANSPARENT) is None:
            state = reached
    if not state.rescaled:
        raise _not_rescaled(state, constants)
    return state


def _not_rescaled(state: Epilogue, constants: Constants) -> Refused:
    nodes = () if state.y.is_graph_output() else [use.node for use in state.y.uses()]
    computed = [v for node in nodes for v in node.inputs if v is not state.y and v not in constants]
    if len(nodes) == len(computed) == 1 and producer(nodes[0].outputs[0], "Mul", "Div") is not None:
        return Refused(
            "the product of codes is scaled by something else than the activation scale",
            fix="divide the output by what the activations were multiplied by, with the same epsilon",
        )
    return Refused(
        "the product of codes is not divided by the activation scale",
        fix="divide the output by it, or dequantise in front of the product",
    )


def _sums(product: Product, activation: Activation | None) -> ir.Value:
    """The output of the product, as float32, or in the half precision that the whole layer is in."""
    sums = product.node.outputs[0]
    if not product.is_integer:
        return sums
    uses = list(sums.uses())
    cast = producer(uses[0].node.outputs[0], "Cast") if len(uses) == 1 else None
    to = 0 if cast is None else cast.attributes.get_int("to", 0)
    types = {ir.DataType.FLOAT} | ({activation.x.dtype} & HALVES if activation is not None else set())
    if cast is None or cast.graph is not sums.graph or to not in types:
        raise Refused("its integer sums are used otherwise than as float32", fix="cast them to float32 alone")
    return cast.outputs[0]


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
    if producer(y, *_TRANSPARENT) is not None:
        transparent = skip(y, reader.constants) is skip(state.y, reader.constants)
        return replace(state, y=y) if transparent else None
    if producer(y, "Transpose") is not None:
        return _transposed(reader, state, y)
    if producer(y, *RESHAPES) is not None and index == 0:
        return _restored(reader, state, node)
    if producer(y, "BatchNormalization") is not None and index == 0:
        return _normalized(reader, state, node)
    other = node.inputs[1 - index] if len(node.inputs) == _BINARY else None
    return None if other is None else _with_operand(reader, state, node, index, other)


def _with_operand(
    reader: _Reader, state: Epilogue, node: ir.Node, index: int, other: ir.Value
) -> Epilogue | None:
    """Behind ``state.y`` + other and the like, where ``state.y`` is the input at ``index``."""
    y = node.outputs[0]
    if producer(y, "Add") is not None or (producer(y, "Sub") is not None and index == 0):
        bias = _constant_row(reader, other, state)
        return None if bias is None else _biased(state, bias if node.op_type == "Add" else -bias, y)
    if producer(y, "Mul") is not None or (producer(y, "Div") is not None and index == 0):
        return _multiplied(reader, state, other, y, power=-1 if node.op_type == "Div" else 1)
    return None


def _biased(state: Epilogue, bias: Row, y: ir.Value) -> Epilogue | None:
    both = state.rescaled and bool(state.before.any())  # the op has one bias
    return None if both else _added(state, bias, y)


def _transposed(reader: _Reader, state: Epilogue, y: ir.Value) -> Epilogue | None:
    """Behind a Transpose that brings the output to the layout of the op; others stay behind the layer."""
    found = transposition(y)
    if found is None or len(found[1]) != len(state.layout or reader.x_layout):
        return None  # of no transposition: the layer is in the layout of the op already
    if not minimal(reader.x_layout, state.layout)[1]:
        return None
    layout = composed(state.layout, found[1])
    return None if minimal(reader.x_layout, layout)[1] else replace(state, y=y, layout=layout)


def _restored(reader: _Reader, state: Epilogue, node: ir.Node) -> Epilogue | None:
    """Behind a Reshape that undoes those between the quantizer and the product.

    A shape that is computed may be so of what is in front of the layer, and then nothing can be proven: it is
    only followed where the scale behind it makes it necessary.
    """
    y, activation = node.outputs[0], reader.activation
    if activation is None or not activation.reshapes or activation.restored or state.restored:
        return None
    if activation.reshapes[0].op_type == "Transpose":
        return None
    if state.rescaled and any(v not in reader.constants for v in node.inputs[1:]):
        return None
    if not same_tokens(activation.x.shape, y.shape, reader.n):
        return None
    return replace(state, y=y, restored=True)


def _normalized(reader: _Reader, state: Epilogue, node: ir.Node) -> Epilogue | None:
    """Behind a BatchNormalization of inference whose channels are the outputs of the layer."""
    rank = len(state.layout) or (state.y.shape.rank() if state.y.shape is not None else 0)
    if rank + columns_of_output(state.layout) != 1 or node.attributes.get_int("training_mode", 0) != 0:
        return None
    rows = [None if v is None else constant_row(v, reader.n, reader.constants) for v in node.inputs[1:5]]
    known = [row for row in rows if row is not None]
    if len(known) != _STATISTICS or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return None
    scale, bias, mean, variance = known
    gain = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    if not np.all(gain != 0):
        return None
    y = node.outputs[0]
    return _biased(state.scaled(gain, y), bias - mean * gain, y)


def _multiplied(
    reader: _Reader, state: Epilogue, factor: ir.Value, y: ir.Value, *, power: int
) -> Epilogue | None:
    """``state.y`` times ``factor`` to the power 1 or -1."""
    constant = _constant_row(reader, factor, state)
    if constant is not None:
        return state.scaled(constant**power, y) if np.all(constant != 0) else None
    activation = reader.activation
    if activation is None or state.rescaled:
        return None
    found = read_factor(
        factor,
        activation.largest,
        reader.constants,
        lambda value: _constant_row(reader, value, state),
        within=lambda value: _before_reshape(reader, value, state),
    )
    if found is None:
        return None
    per_token = activation.scope is ActScope.TOKEN
    if per_token and not tokens_align(reader.scale_layout, state.layout):
        return None
    inverse = ONE.times(found, power)
    if inverse.power != 1 or not np.all(inverse.constant != 0) or not activation.meets(factor, y):
        return None
    return replace(state.scaled(inverse.constant * activation.divisor, y), rescaled=True)


def _before_reshape(reader: _Reader, value: ir.Value, state: Epilogue) -> ir.Value:
    """The scale of tokens that is given the shape of those of the product, as they were; else the value."""
    reshape = producer(value, *RESHAPES)
    inner = None if reshape is None else reshape.inputs[0]
    if inner is None or not same_tokens(state.y.shape, value.shape, 1):
        return value
    return skip(inner, reader.constants)


def _constant_row(reader: _Reader, value: ir.Value, state: Epilogue) -> Row | None:
    """A constant operand of ``state.y``."""
    return constant_row(value, reader.n, reader.constants, state.y, columns_of_output(state.layout))
