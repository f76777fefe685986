"""Read the constant weight of a node that multiplies, in whatever layout it has, as a matrix [N, K]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bitcc.passes._refused import Refused
from bitcc.passes.between import HALVES
from bitcc.passes.einsum import has_batch, read_equation
from bitcc.passes.integer_products import CONVOLUTIONS, weight_input, without_zero_point
from bitcc.passes.layout import Layout, swapped, transposition
from bitcc.passes.matmul_nbits import MATMUL_NBITS, dequantized
from bitcc.passes.matrix import Matrix
from bitcc.passes.normal_form import producer, skip, without_residue
from bitcc.passes.repeated import stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from bitcc.passes.constants import Constants

_KNOWN = frozenset(
    {
        ("", "MatMul"),
        ("", "Gemm"),
        ("", "Conv"),
        ("", "Einsum"),
        ("", "MatMulInteger"),
        ("com.microsoft", "FusedMatMul"),
        MATMUL_NBITS,
    }
)
_WEIGHT_SECOND = frozenset({"Conv", "MatMulNBits"})


def weight_index(node: ir.Node, constants: Constants) -> int | None:
    """Which input of a node that multiplies a computed tensor is a matrix that no input of the model changes.

    None for every other node.
    """
    fixed = constants.independent_of_inputs
    if (index := weight_input(node)) is not None:
        return index if fixed(node.inputs[index]) and not fixed(node.inputs[0]) else None
    if (node.domain, node.op_type) not in _KNOWN or len(node.inputs) < 2:
        return None
    if node.op_type == "Einsum" and len(node.inputs) != 2:
        return None
    if node.op_type == "MatMulNBits" and not all(v is None or fixed(v) for v in node.inputs[1:]):
        return None
    for index in (1,) if node.op_type in _WEIGHT_SECOND else (1, 0):
        x, read = node.inputs[1 - index], node.inputs[index]
        if x is None or read is None or x in constants:
            continue
        weight = stored(read, constants).value
        if not fixed(weight) or (weight not in constants and fixed(x)):
            continue
        if node.op_type in _WEIGHT_SECOND or _may_be_matrix(node, weight):
            return index
    return None


def _may_be_matrix(node: ir.Node, weight: ir.Value) -> bool:
    """Whether it is a matrix, or several in one tensor."""
    rank = 2 if weight.shape is None else weight.shape.rank()
    return rank == 2 or node.op_type == "Einsum" or (rank > 2 and node.op_type != "Gemm")


def weight_inputs(node: ir.Node, constants: Constants) -> Sequence[ir.Value | None]:
    """The constants that make the weight of a candidate: MatMulNBits has scales and zero points as well."""
    index = weight_index(node, constants)
    if index is None:
        return ()
    if node.op_type == "MatMulNBits":
        return node.inputs[1:4]
    value = node.inputs[index]
    return [None if value is None else stored(value, constants).value]


def stored_weights(node: ir.Node, constants: Constants) -> dict[ir.Value, int]:
    """The initializers and Constants that the weight of a candidate is made of, and their bytes."""
    stored: dict[ir.Value, int] = {}
    seen: set[ir.Value] = set()
    stack = [v for v in weight_inputs(node, constants) if v is not None]
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        made_by = value.producer()
        tensor = value.const_value
        if made_by is not None and made_by.op_type == "Constant":
            attribute = made_by.attributes.get("value")
            tensor = None if attribute is None else attribute.as_tensor()
        elif made_by is not None:
            stack.extend(v for v in made_by.inputs if v is not None)
            continue
        if tensor is not None:
            stored[value] = tensor.nbytes
    return stored


def weight_shape(weight: ir.Value, constants: Constants) -> tuple[int, ...]:
    """Its shape as the node reads it."""
    if weight.shape is not None and weight.shape.is_static():
        return weight.shape.numpy()
    return constants.elementwise(weight).shape


def weight_matrix(node: ir.Node, constants: Constants) -> Matrix:
    """The weights as an [N, K] matrix, the codes before a straight-through residue where the graph has one.

    The filters of a convolution are [outputs, inputs * kernel]. Weights that the node reads in half precision
    are those of before they were rounded to it.

    Raises:
        Refused: the weight is not a matrix or cannot be evaluated.
    """
    index = weight_index(node, constants)
    given = None if index is None else node.inputs[index]
    in_half = given is not None and given.dtype in HALVES

    def before(value: ir.Value) -> ir.Value:
        value = skip(value, constants, rounds=in_half)
        return without_residue(value, constants, rounds=in_half) or value

    return _matrix(node, constants, before)


def has_noise_of_half(node: ir.Node, constants: Constants) -> bool:
    """Whether a straight-through residue in half precision is added to weights that are read in float32.

    The codes of ``weight_matrix`` are those of before it, and the node reads them with its noise.
    """
    index = weight_index(node, constants)
    given = None if index is None else node.inputs[index]
    value = None if given is None or given.dtype in HALVES else stored(given, constants).value
    while value is not None:
        inner = skip(value, constants, rounds=False)
        if without_residue(inner, constants) is not None:
            return inner.dtype in HALVES
        moved = transposition(inner)
        following = inner if moved is None else moved[0]
        value = None if following is value else following
    return False


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
    given = None if index is None else node.inputs[index]
    if index is None or given is None:
        raise Refused("it has no constant weight")
    if node.op_type == "MatMulNBits":
        return Matrix.of(dequantized(node, constants))
    value, sides_swap, *_ = stored(given, constants)
    by_rows = is_rows(node, index) is not sides_swap
    while True:
        inner = _behind_reshape(before(value), node, by_rows=by_rows)
        if (found := transposition(inner)) is not None and _swaps(found[1], node):
            inner, by_rows = found[0], not by_rows
        if inner is value:
            break
        value = inner
    content = constants.elementwise(value)
    content = without_zero_point(content, node, constants, by_rows=by_rows)
    sides = _sides(content.shape, node, by_rows=by_rows)
    if sides is None or not np.prod(content.shape):
        raise Refused(f"the weight has the shape {list(content.shape)}, which is no matrix")
    if content.dtype.kind not in "fiuV":
        raise Refused(f"the weight is {content.dtype}, not numbers")
    parts = 1 if by_rows or node.op_type == "Einsum" else math.prod(content.shape[:-2])
    return Matrix(content.reshaped(sides), transposed=not by_rows, parts=parts)


def _swaps(perm: Layout, node: ir.Node) -> bool:
    """Whether a transposition of a weight is that of its matrix."""
    return perm == (1, 0) or (node.op_type not in {*CONVOLUTIONS, "Einsum"} and perm == swapped(len(perm)))


def _behind_reshape(value: ir.Value, node: ir.Node, *, by_rows: bool) -> ir.Value:
    """The matrix of which a Reshape makes a weight with more axes."""
    reshape = producer(value, "Reshape", "Unsqueeze", "Squeeze")
    inner = None if reshape is None else reshape.inputs[0]
    if inner is None or inner.shape is None or value.shape is None:
        return value
    if inner.shape.rank() != 2 or not inner.shape.is_static() or not value.shape.is_static():
        return value
    sides = _sides(value.shape.numpy(), node, by_rows=by_rows)
    return inner if sides == inner.shape.numpy() else value


def _sides(shape: tuple[int, ...], node: ir.Node, *, by_rows: bool) -> tuple[int, int] | None:
    """A weight's rows and columns as the node reads it; None if it is none.

    Of several matrices those of them all, side by side or one below the other: their scales are then those of
    groups of columns, or of rows.
    """
    if len(shape) < 2:
        return None
    is_of_axes = node.op_type == "Einsum" and not by_rows and not has_batch(equation_of(node))
    if node.op_type in CONVOLUTIONS or is_of_axes:
        return shape[0], math.prod(shape[1:])
    return math.prod(shape[:-1]), shape[-1]


def is_rows(node: ir.Node, index: int) -> bool:
    """Whether the node reads its weight as [N, K] rather than [K, N]."""
    if node.op_type in CONVOLUTIONS:
        return True
    if node.op_type == "Einsum":
        other = node.inputs[1 - index]
        try:
            rank = None if other is None or other.shape is None else other.shape.rank()
            return read_equation(equation_of(node), index, rank).transposed
        except Refused:
            return True  # it is kept: as it is stored
    if index == 0:
        return not node.attributes.get_int("transA", 0)
    return bool(node.attributes.get_int("transB", 0))


def equation_of(node: ir.Node) -> str:
    """Of an Einsum."""
    return node.attributes.get_string("equation", "") or ""
