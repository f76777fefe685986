"""Read a matrix product with a constant weight, x @ W.T, in whatever layout the graph has its tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc.passes._refused import Refused
from bitcc.passes.einsum import read_equation
from bitcc.passes.elementwise import Matrix
from bitcc.passes.layout import Layout, behind_transposes, composed, swapped, transposition
from bitcc.passes.matmul_nbits import MATMUL_NBITS, bias_of, dequantized
from bitcc.passes.normal_form import producer, skip, without_residue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants

    Array = NDArray[Any]

_KNOWN = frozenset(
    {
        ("", "MatMul"),
        ("", "Gemm"),
        ("", "Conv"),
        ("", "Einsum"),
        ("com.microsoft", "FusedMatMul"),
        MATMUL_NBITS,
    }
)
_WEIGHT_SECOND = frozenset({"Conv", "MatMulNBits"})
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

    def before_transpose(self) -> Product | None:
        """The same product of what is transposed to ``x``, or None if nothing is."""
        found = transposition(self.x)
        if found is None or len(self.x_layout or found[1]) != len(found[1]):
            return None
        inner, perm = found
        return replace(self, x=inner, x_layout=composed(perm, self.x_layout))


def weight_index(node: ir.Node, constants: Constants) -> int | None:
    """Which input of a node that multiplies a computed tensor is a matrix that no input of the model changes.

    None for every other node.
    """
    if (node.domain, node.op_type) not in _KNOWN or len(node.inputs) < 2:
        return None
    if node.op_type == "Einsum" and len(node.inputs) != 2:
        return None
    fixed = constants.independent_of_inputs
    if node.op_type == "MatMulNBits" and not all(v is None or fixed(v) for v in node.inputs[1:]):
        return None
    for index in (1,) if node.op_type in _WEIGHT_SECOND else (1, 0):
        x, weight = node.inputs[1 - index], node.inputs[index]
        if x is None or weight is None or x in constants or not fixed(weight):
            continue
        if weight not in constants and fixed(x):
            continue
        if node.op_type in _WEIGHT_SECOND or weight.shape is None or weight.shape.rank() == 2:
            return index
    return None


def weight_inputs(node: ir.Node, constants: Constants) -> Sequence[ir.Value | None]:
    """The constants that make the weight of a candidate: MatMulNBits has scales and zero points as well."""
    index = weight_index(node, constants)
    if index is None:
        return ()
    return node.inputs[1:4] if node.op_type == "MatMulNBits" else [node.inputs[index]]


def read_product(node: ir.Node, constants: Constants) -> Product:
    """A candidate as a product.

    Raises:
        Refused: it is none, or its layout is not known.
    """
    index = weight_index(node, constants)
    x, weight = (None, None) if index is None else (node.inputs[1 - index], node.inputs[index])
    if index is None or x is None or weight is None:
        raise Refused("it has no constant weight")
    product = Product(node, x, weight)
    if node.op_type == "Conv":
        product = _pointwise(product, constants)
    elif node.op_type == "MatMulNBits":
        product = replace(product, bias=bias_of(node))
    elif node.op_type == "Einsum":
        found = read_equation(_equation(node), index, _rank(x))
        product = replace(product, x_layout=found.x, y_layout=found.y)
    else:
        product = _with_flags(product, index)
    x, x_layout = behind_transposes(product.x, product.x_layout)
    return replace(product, x=x, x_layout=x_layout)


def _with_flags(product: Product, index: int) -> Product:
    """MatMul, FusedMatMul and Gemm: which of the two sides are transposed."""
    node = product.node
    get_int, get_float = node.attributes.get_int, node.attributes.get_float
    if get_int("transBatchA", 0) or get_int("transBatchB", 0):
        raise Refused("the batch axes of an operand are transposed")
    product = replace(product, alpha=get_float("alpha", 1.0))
    if node.op_type == "Gemm":
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        product = replace(product, bias=bias, beta=get_float("beta", 1.0), bias_axis=-1 - (index == 0))
    on_left = index == 0
    # of a weight on the left, what is [K, tokens] as it is becomes [tokens, K], and so does the result
    swaps_input = bool(get_int("transA" if index == 1 else "transB", 0)) is not on_left
    rank = 2 if node.op_type == "Gemm" else _rank(product.x)
    if rank == 1 and node.op_type == "MatMul":
        return product
    if rank is None or rank < 2:
        if swaps_input or on_left:
            raise Refused(_TRANSPOSED_INPUT)
        return product
    return replace(
        product,
        x_layout=swapped(rank) if swaps_input else (),
        y_layout=swapped(rank) if on_left else (),
    )


def _pointwise(product: Product, constants: Constants) -> Product:
    """A convolution with filters of one element: a product over the channels."""
    node = product.node
    rank = _filter_rank(product, constants)
    get_ints = node.attributes.get_ints
    kernel = get_ints("kernel_shape") or ()
    if product.weight.shape is not None and product.weight.shape.is_static():
        kernel = product.weight.shape.numpy()[2:]
    one = bool(kernel) and set(kernel) == {1} and set(get_ints("strides") or (1,)) == {1}
    unpadded = not any(get_ints("pads") or ())
    if not one or not unpadded or node.attributes.get_int("group", 1) != 1 or rank < 3:
        raise Refused("it is a convolution; only matrix products and 1x1 convolutions are packed")
    if _rank(product.x) != rank:
        raise Refused(_TRANSPOSED_INPUT)
    return replace(
        product,
        bias=node.inputs[2] if len(node.inputs) > 2 else None,
        x_layout=(0, *range(2, rank), 1),
        y_layout=(0, rank - 1, *range(1, rank - 1)),
    )


def weight_matrix(node: ir.Node, constants: Constants) -> Matrix:
    """The weights as an [N, K] matrix, the codes before a straight-through residue where the graph has one.

    The filters of a convolution are [outputs, inputs * kernel].

    Raises:
        Refused: the weight is not a matrix or cannot be evaluated.
    """

    def before(value: ir.Value) -> ir.Value:
        value = skip(value, constants)
        return without_residue(value, constants) or value

    return _matrix(node, constants, before)


def weight_as_read(node: ir.Node, constants: Constants) -> Matrix:
    """The weights as an [N, K] matrix, to the last bit what the node reads.

    Raises:
        Refused: the weight is not a matrix or cannot be evaluated.
    """

    def before(value: ir.Value) -> ir.Value:
        identity = producer(value, "Identity")
        return value if identity is None or identity.inputs[0] is None else identity.inputs[0]

    return _matrix(node, constants, before)


def _matrix(node: ir.Node, constants: Constants, before: Callable[[ir.Value], ir.Value]) -> Matrix:
    """The weights ``before`` what may be looked through, and before transpositions."""
    index = weight_index(node, constants)
    value = None if index is None else node.inputs[index]
    if index is None or value is None:
        raise Refused("it has no constant weight")
    if node.op_type == "MatMulNBits":
        return Matrix.of(dequantized(node, constants))
    is_filter, is_rows = node.op_type == "Conv", _is_rows(node, index)
    while True:
        inner = before(value)
        if not is_filter and (found := transposition(inner)) is not None and found[1] == (1, 0):
            inner, is_rows = found[0], not is_rows
        if inner is value:
            break
        value = inner
    content = constants.elementwise(value)
    right_rank = len(content.shape) >= 3 if is_filter else len(content.shape) == 2
    if not right_rank or content.dtype.kind not in "fiuV" or not np.prod(content.shape):
        raise Refused(f"the weight is {content.dtype} {list(content.shape)}, not a matrix of numbers")
    if is_filter:
        return Matrix.of(content.whole().reshape(content.shape[0], -1))
    return Matrix(content, transposed=not is_rows)


def as_read(product: Product, matrix: Array, constants: Constants) -> Array:
    """[N, K] in the layout in which the node reads its weight."""
    node = product.node
    if node.op_type == "Conv":
        return matrix.reshape(*matrix.shape, *(1,) * (_filter_rank(product, constants) - 2))
    index = weight_index(node, constants)
    return matrix if index is not None and _is_rows(node, index) else np.ascontiguousarray(matrix.T)


def _filter_rank(product: Product, constants: Constants) -> int:
    return _rank(product.weight) or constants.array(product.weight).ndim


def _is_rows(node: ir.Node, index: int) -> bool:
    """Whether the node reads its weight as [N, K] rather than [K, N]."""
    if node.op_type == "Einsum":
        other = node.inputs[1 - index]
        try:
            rank = None if other is None else _rank(other)
            return read_equation(_equation(node), index, rank).transposed
        except Refused:
            return True  # it is kept: as it is stored
    if index == 0:
        return not node.attributes.get_int("transA", 0)
    return bool(node.attributes.get_int("transB", 0))


def _equation(node: ir.Node) -> str:
    return node.attributes.get_string("equation", "") or ""


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else value.shape.rank()
