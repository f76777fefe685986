"""Read a matrix product with a constant weight: MatMul, Gemm and onnxruntime's FusedMatMul, as x @ W.T."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc.passes._refused import Refused
from bitcc.passes.normal_form import producer, skip, without_residue

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants


@dataclass(frozen=True)
class Product:
    """``alpha * (x @ W.T) + beta * bias``.

    Attributes:
        node: The MatMul, Gemm or FusedMatMul.
        x: The data input, [..., K].
        weight: The constant weight value, as the node reads it.
        transposed: Whether ``weight`` is [N, K] rather than [K, N].
        alpha: Factor of the product.
        bias: Gemm's C, or None.
        beta: Its factor.
    """

    node: ir.Node
    x: ir.Value
    weight: ir.Value
    transposed: bool
    alpha: float = 1.0
    bias: ir.Value | None = None
    beta: float = 1.0


def is_candidate(node: ir.Node, constants: Constants) -> bool:
    """Whether the node multiplies or convolves a computed tensor with one that no input changes."""
    known = {("", "MatMul"), ("", "Gemm"), ("", "Conv"), ("com.microsoft", "FusedMatMul")}
    if (node.domain, node.op_type) not in known or len(node.inputs) < 2:
        return False
    x, weight = node.inputs[:2]
    if x is None or weight is None or x in constants or not constants.independent_of_inputs(weight):
        return False
    if weight not in constants and constants.independent_of_inputs(x):
        return False
    return node.op_type == "Conv" or weight.shape is None or weight.shape.rank() == 2


def read_product(node: ir.Node) -> Product:
    """The candidate as a product.

    Raises:
        Refused: it is a convolution, or its attributes mean something else than x @ W.T.
    """
    if node.op_type == "Conv":
        raise Refused("it is a convolution; only matrix products are packed")
    x, weight = node.inputs[:2]
    if x is None or weight is None:
        raise Refused("the product has a missing input")
    get_int = node.attributes.get_int
    if get_int("transA", 0) or get_int("transBatchA", 0) or get_int("transBatchB", 0):
        raise Refused("the data input is transposed", fix="transpose it by a node in front of the product")
    transposed = bool(get_int("transB", 0))
    alpha = node.attributes.get_float("alpha", 1.0)
    beta = node.attributes.get_float("beta", 1.0)
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    return Product(node, x, weight, transposed, alpha, bias, beta)


def filter_matrix(node: ir.Node, constants: Constants) -> NDArray[Any]:
    """The filters of a convolution as [outputs, inputs * kernel].

    Raises:
        Refused: they cannot be evaluated.
    """
    weight = node.inputs[1]
    if weight is None:
        raise Refused("the convolution has no filters")
    array = constants.array(without_residue(skip(weight, constants), constants) or weight)
    if array.ndim < 3 or not array.size or array.dtype.kind not in "fiuV":
        raise Refused(f"the filters are {array.dtype} {list(array.shape)}")
    return array.reshape(array.shape[0], -1)


def weight_matrix(product: Product, constants: Constants) -> NDArray[Any]:
    """The weights as an [N, K] array, the codes before a straight-through residue where the graph has one.

    Raises:
        Refused: the weight is not a matrix or cannot be evaluated.
    """
    value, transposed = product.weight, product.transposed
    while True:
        value = skip(value, constants)
        inner = without_residue(value, constants)
        transpose = producer(value, "Transpose")
        if inner is None and transpose is not None and transpose.inputs[0] is not None:
            if list(transpose.attributes.get_ints("perm", [1, 0])) != [1, 0]:
                break
            inner, transposed = transpose.inputs[0], not transposed
        if inner is None:
            break
        value = inner
    array = constants.array(value)
    if array.ndim != 2 or array.dtype.kind not in "fiuV" or not np.size(array):
        raise Refused(f"the weight is {array.dtype} {list(array.shape)}, not a matrix of numbers")
    return array if transposed else array.T
