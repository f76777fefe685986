"""Read a matrix product with a constant weight, x @ W.T, in whatever layout the graph has its tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from bitcc.passes._refused import Refused
from bitcc.passes.einsum import RANKS, has_batch, read_equation
from bitcc.passes.integer_products import weight_input
from bitcc.passes.layout import Layout, behind_transposes, composed, rank_of, swapped, transposition
from bitcc.passes.matmul_nbits import bias_of
from bitcc.passes.repeated import check_repetition, stored
from bitcc.passes.weight import equation_of, is_rows, weight_index, weight_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants

    Array = NDArray[Any]

_OF_STACKS = ("MatMul", "FusedMatMul", "MatMulInteger")
_INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)
_PLAIN_CODES = (
    "quantise the activations of each token symmetrically, as BitNet b1.58 does, and the weights to -1, 0, 1"
)
_ONE = "for integer kernels, multiply by one matrix in each MatMul, as a loop over experts does"
_TRANSPOSED_INPUT = "the rank of its input is not known, so that it cannot be transposed"


@dataclass(frozen=True)
class Product:
    """``alpha * (x @ W.T) + beta * bias``, with x and the result in layouts of their own.

    Attributes:
        node: The node that multiplies.
        x: The data input.
        weight: The constant weight value, as the node reads it; of a MatMulNBits, its packed codes.
        alpha: Factor of the product.
        bias: Constant that the node adds, or None.
        beta: Its factor.
        bias_axis: Axis of N in the bias, counted from the end.
        x_layout: What brings ``x`` to [..., K].
        y_layout: What brings [..., N] to the output of the node.
        y_shape: What [..., N] is reshaped to before that, 0 for an axis that stays; empty if N is one axis.
    """

    node: ir.Node
    x: ir.Value
    weight: ir.Value
    alpha: float = 1.0
    bias: ir.Value | None = None
    beta: float = 1.0
    bias_axis: int = -1
    x_layout: Layout = ()
    y_layout: Layout = ()
    y_shape: tuple[int, ...] = ()

    @property
    def is_integer(self) -> bool:
        """Whether the node multiplies integers and makes integer sums."""
        return self.node.op_type == "MatMulInteger" or self.weight.dtype in _INTEGERS

    def before_transpose(self) -> Product | None:
        """The same product of what is transposed to ``x``, or None if nothing is."""
        found = transposition(self.x)
        if found is None or len(self.x_layout or found[1]) != len(found[1]):
            return None
        inner, perm = found
        return replace(self, x=inner, x_layout=composed(perm, self.x_layout))


def read_product(node: ir.Node, constants: Constants) -> Product:
    """A candidate as a product.

    Raises:
        Refused: it is none, or its layout is not known.
    """
    if weight_input(node) is not None:
        reason = f"{node.op_type} multiplies integers that have scales and zero points of their own"
        raise Refused(reason, fix=_PLAIN_CODES)
    index = weight_index(node, constants)
    x, weight = (None, None) if index is None else (node.inputs[1 - index], node.inputs[index])
    if index is None or x is None or weight is None:
        raise Refused("it has no constant weight")
    read = stored(weight, constants)
    in_batch = node.op_type == "Einsum" and has_batch(equation_of(node))
    check_repetition(x, weight, read, columns=1 if in_batch else 2)
    count = math.prod(weight_shape(read.value, constants)[:-2])
    if count > 1 and (node.op_type in _OF_STACKS or in_batch):
        raise Refused(f"its weight is a stack of {count} matrices", fix=_ONE)
    if node.op_type == "MatMulInteger" and any(
        v is not None and constants.scalar(v) != 0 for v in node.inputs[2:]
    ):
        raise Refused("it multiplies integers that have a zero point", fix=_PLAIN_CODES)
    product = Product(node, x, weight)
    if node.op_type == "Conv":
        product = _pointwise(product, constants)
    elif node.op_type == "MatMulNBits":
        product = replace(product, bias=bias_of(node))
    elif node.op_type == "Einsum":
        found = read_equation(equation_of(node), index, rank_of(x))
        if in_batch and (found.outputs > 1 or rank_of(weight) != (rank_of(x) or 0) + 1):
            reason = "has a batch of weights with other axes than its input"
            raise Refused(f"its equation `{equation_of(node)}` {reason}", fix=_ONE)
        product = replace(product, x_layout=found.x, y_layout=found.y)
        if found.outputs > 1:
            axes = weight_shape(weight, constants)
            outputs = axes[:-1] if found.transposed else axes[1:]
            product = replace(product, y_shape=(*(0,) * ((rank_of(x) or 1) - 1), *outputs))
    else:
        product = _with_flags(product, index)
    x, x_layout = behind_transposes(product.x, product.x_layout)
    return replace(product, x=x, x_layout=x_layout)


def _with_flags(product: Product, index: int) -> Product:
    """MatMul, FusedMatMul and Gemm: which of the two sides are transposed."""
    node = product.node
    get_int, get_float = node.attributes.get_int, node.attributes.get_float
    if get_int("transBatchA", 0) or get_int("transBatchB", 0):
        raise Refused(
            "the batch axes of an operand are transposed",
            fix="optimise the compiled model in place of this one, or only up to onnxruntime's basic level",
        )
    product = replace(product, alpha=get_float("alpha", 1.0))
    if node.op_type == "Gemm":
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        product = replace(product, bias=bias, beta=get_float("beta", 1.0), bias_axis=-1 - (index == 0))
    on_left = index == 0
    # of a weight on the left, what is [K, tokens] as it is becomes [tokens, K], and so does the result
    swaps_input = bool(get_int("transA" if index == 1 else "transB", 0)) is not on_left
    rank = 2 if node.op_type == "Gemm" else rank_of(product.x)
    if (axes := rank_of(product.weight) or 2) > 2 and (rank is None or rank < axes):
        raise Refused(
            "its weight has more axes than its input is known to have", fix="store the weight as [K, N]"
        )
    if rank == 1 and node.op_type == "MatMul":
        return product
    if rank is None or rank < 2:
        if swaps_input or on_left:
            raise Refused(_TRANSPOSED_INPUT, fix=RANKS)
        return product
    return replace(
        product,
        x_layout=swapped(rank) if swaps_input else (),
        y_layout=swapped(rank) if on_left else (),
    )


def _pointwise(product: Product, constants: Constants) -> Product:
    """A convolution with filters of one element: a product over the channels."""
    node = product.node
    rank = len(weight_shape(product.weight, constants))
    get_ints = node.attributes.get_ints
    kernel = get_ints("kernel_shape") or ()
    if product.weight.shape is not None and product.weight.shape.is_static():
        kernel = product.weight.shape.numpy()[2:]
    one = bool(kernel) and set(kernel) == {1} and set(get_ints("strides") or (1,)) == {1}
    unpadded = not any(get_ints("pads") or ())
    if not one or not unpadded or node.attributes.get_int("group", 1) != 1 or rank < 3:
        raise Refused("it is a convolution; only matrix products and 1x1 convolutions are packed")
    if rank_of(product.x) != rank:
        raise Refused(_TRANSPOSED_INPUT, fix=RANKS)
    return replace(
        product,
        bias=node.inputs[2] if len(node.inputs) > 2 else None,
        x_layout=(0, *range(2, rank), 1),
        y_layout=(0, rank - 1, *range(1, rank - 1)),
    )


def as_read(product: Product, matrix: Array, constants: Constants) -> Array:
    """[N, K] in the layout in which the node reads its weight."""
    index, k = weight_index(product.node, constants), matrix.shape[1]
    rank = rank_of(product.weight) or len(weight_shape(product.weight, constants))
    by_rows = index is not None and is_rows(product.node, index)
    stored = matrix if by_rows else np.ascontiguousarray(matrix.T)
    if outputs := tuple(size for size in product.y_shape if size):
        return stored.reshape((*outputs, k) if by_rows else (k, *outputs))
    ones = (1,) * (rank - 2)
    is_filter = product.node.op_type == "Conv"
    return stored.reshape((*stored.shape, *ones) if is_filter else (*ones, *stored.shape))
