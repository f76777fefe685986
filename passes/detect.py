"""Find the BitLinear layers of a model, and say of every other matrix product why it is none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx_ir as ir

from bitcc import ops
from bitcc.passes._refused import Refused
from bitcc.passes.activation import Activation, match_activation
from bitcc.passes.epilogue import Epilogue, read_epilogue
from bitcc.passes.matmul import Product, is_candidate, read_product, weight_matrix
from bitcc.passes.ternary import Ternary, to_ternary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants


@dataclass(frozen=True)
class Layer:
    """A proven shape of a BitLinear: what replaces it is ``op`` of ``x`` with these numbers.

    Attributes:
        name: The name of the product's node.
        node: The matrix product.
        x: What is quantised, [..., K].
        y: What the layer computes, [..., N].
        x_type: The type of ``x``.
        y_type: The type of ``y``.
        op: The attributes of the op.
        ternary: The exact weights.
        w_scale: float32 [1] or [N].
        bias: float32 [1] or [N].
        bytes_before: Size of the weight in the source model.
    """

    name: str
    node: ir.Node
    x: ir.Value
    y: ir.Value
    x_type: ir.DataType
    y_type: ir.DataType
    op: ops.BitLinear
    ternary: Ternary
    w_scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    bytes_before: int

    def without_codes(self) -> Layer:
        """The layer without its dense codes, which are large and live on in packed form."""
        return replace(self, ternary=Ternary(np.zeros((0, 0), np.int8), self.ternary.scale))


@dataclass(frozen=True)
class Kept:
    """A product with a constant weight that stays as it is.

    Attributes:
        name: The name of the product's node.
        op_type: ``MatMul``, ``Gemm`` or ``FusedMatMul``.
        n: Outputs, 0 if unknown.
        k: Inputs, 0 if unknown.
        scheme: ``ternary`` if the weights are, else ``dense``.
        reason: The first rule that failed, in words.
        bytes_before: Size of the weight in the source model.
    """

    name: str
    op_type: str
    n: int
    k: int
    scheme: str
    reason: str
    bytes_before: int


Finding: TypeAlias = Layer | Kept


def candidates(model: ir.Model, constants: Constants) -> list[ir.Node]:
    """The nodes of the main graph that multiply by a constant matrix, in graph order."""
    return [node for node in model.graph if is_candidate(node, constants)]


def detect(node: ir.Node, constants: Constants, min_weights: int) -> Finding:
    """Decide about one candidate.

    Args:
        node: One of ``candidates``.
        constants: Of the model.
        min_weights: Layers with fewer weights stay float.
    """
    name = node.name or node.outputs[0].name or node.op_type
    n = k = 0
    scheme = "dense"
    try:
        product = read_product(node)
        matrix = weight_matrix(product, constants)
        n, k = matrix.shape
        ternary = to_ternary(matrix)
        scheme = "ternary"
        del matrix
        _check_size(n, k, min_weights)
        activation = match_activation(product.x, constants)
        epilogue = read_epilogue(product, activation, n, constants)
        return _layer(name, product, activation, epilogue, ternary)
    except Refused as refusal:
        return Kept(name, node.op_type, n, k, scheme, refusal.reason, _weight_bytes(node))


def _check_size(n: int, k: int, min_weights: int) -> None:
    if n * k < min_weights:
        raise Refused(
            f"it has {n * k} weights; layers with fewer than {min_weights} stay float (--min-weights)"
        )
    if k > ops.MAX_K:
        raise Refused(f"K = {k} is over the limit of {ops.MAX_K}")


def _layer(
    name: str, product: Product, activation: Activation, epilogue: Epilogue, ternary: Ternary
) -> Layer:
    n, k = ternary.codes.shape
    _check_last_dim(activation.x, k)
    scale = ternary.scale.astype(np.float64) * epilogue.gain
    bias_first = bool(epilogue.before.any())
    bias = epilogue.before / (epilogue.gain * ternary.scale) if bias_first else epilogue.after
    if bias_first and epilogue.after.any():
        raise Refused("it adds one bias before the activation scale and one behind it")
    w_scale, bias32 = scale.astype(np.float32), bias.astype(np.float32)
    if not np.isfinite(w_scale).all() or not np.isfinite(bias32).all():
        raise Refused("its scale or bias is not finite in float32")
    op = ops.BitLinear(
        K=k,
        N=n,
        act_scale=activation.form,
        act_floor=activation.floor,
        act_eps=activation.eps,
        qmax=activation.qmax,
        act_min=activation.low,
        act_max=activation.high,
        bias_before_scale=int(bias_first),
    )
    return Layer(
        name=name,
        node=product.node,
        x=activation.x,
        y=epilogue.y,
        x_type=_type(activation.x, product),
        y_type=_type(epilogue.y, product),
        op=op,
        ternary=ternary,
        w_scale=w_scale,
        bias=bias32,
        bytes_before=_weight_bytes(product.node),
    )


def _type(value: ir.Value, product: Product) -> ir.DataType:
    """The type of a value; where the file does not say, that of the weight it meets."""
    found = value.dtype or product.weight.dtype
    if found is None:
        raise Refused(f"the type of `{value.name}` is not known")
    if found not in {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}:
        raise Refused(f"it computes in {found.name.lower()}")
    return found


def _check_last_dim(x: ir.Value, k: int) -> None:
    """A quantizer that broadcasts, of an input whose last dimension is not K, is no per-token quantizer."""
    if x.shape is None or x.shape.rank() == 0:
        return
    last = x.shape[-1]
    if isinstance(last, int) and last != k:
        raise Refused(f"the quantised input has {last} columns, the weight {k}")


def _weight_bytes(node: ir.Node) -> int:
    """Bytes of the initializers that the constant inputs of a product are made of."""
    total, seen = 0, set()
    stack = [v for v in node.inputs[1:2] if v is not None]
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        made_by = value.producer()
        if made_by is not None:
            stack.extend(v for v in made_by.inputs if v is not None)
        elif value.const_value is not None:
            total += value.const_value.nbytes
    return total
