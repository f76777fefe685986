"""Find the BitLinear layers of a model, and say of every other matrix product why it is none."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bitcc import ops
from bitcc.facts import KEPT, LayerFacts
from bitcc.formats import FORMATS
from bitcc.passes._refused import Refused
from bitcc.passes.activation import Activation, match_activation
from bitcc.passes.copies import copies_of
from bitcc.passes.epilogue import Epilogue, read_epilogue
from bitcc.passes.layer import Layer
from bitcc.passes.layout import behind_transposes, columns_of_input, minimal
from bitcc.passes.matmul import Product, read_product
from bitcc.passes.precision import check_single, type_of
from bitcc.passes.residues import foreign_bases
from bitcc.passes.structure import check_structure
from bitcc.passes.ternary import Ternary, to_ternary
from bitcc.passes.weight import has_noise_of_half, stored_weights, weight_index, weight_matrix
from bitcc.passes.weight_facts import WeightFacts, of_dense, of_ternary
from bitcc.ternary_linear import TernaryLinear

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.formats import WeightFormat
    from bitcc.passes.constants import Constants

_SCALES = "train with a weight scale for the tensor or for each row"
_LATENT = "its activations are those of a BitLinear: export its weight quantizer in the graph, or merged"
_BIAS = "add both to the output that is scaled, or both to the one that is not"


MIN_FLOAT_WEIGHTS = 4096
"""Layers with float activations and fewer weights stay as they are by default."""

Finding: TypeAlias = Layer | LayerFacts
"""A layer that can be packed, or what is told of one that stays as it is."""


def candidates(model: ir.Model, constants: Constants) -> list[ir.Node]:
    """The nodes that multiply by a constant matrix, in graph order, bodies of If, Loop and Scan included."""
    return [node for node in model.graph.all_nodes() if weight_index(node, constants) is not None]


def detect(
    node: ir.Node,
    constants: Constants,
    min_weights: int | None,
    weight_format: WeightFormat = FORMATS["t2"],
    *,
    not_int8: Refused | None = None,
) -> Finding:
    """Decide about one candidate.

    1. The weights must be ternary by value.
    2. With an int8 quantizer in front and its scale divided out behind, it is a ``BitLinear``.
    3. Otherwise the activations stay as they are: ``TernaryLinear``, if the matrix looks trained.

    Args:
        node: One of ``candidates``.
        constants: Of the model.
        min_weights: Layers with fewer weights stay as they are; None for the default of each op.
        weight_format: Of the codes.
        not_int8: Why the activations stay float in any case, where that is known.
    """
    name = node.name or node.outputs[0].name or node.op_type
    n = k = 0
    ternary, weights = None, WeightFacts()
    try:
        matrix = weight_matrix(node, constants)
        n, k = matrix.shape
        try:
            ternary = to_ternary(matrix, weight_format)
        except Refused as refusal:
            weights, fix = of_dense(matrix)
            raise Refused(refusal.reason, fix=fix or refusal.fix) from refusal
        del matrix
        if has_noise_of_half(node, constants):
            ternary = replace(ternary, noisy=True)
        product = read_product(node, constants)
        with np.errstate(all="ignore"):  # scales that are not finite are refused
            return _sized(_with_codes(name, product, ternary, constants, not_int8), min_weights)
    except Refused as refusal:
        weights = weights if ternary is None else of_ternary(ternary)
        activation = _activation(node, k, constants)
        fix = refusal.fix
        if ternary is None and activation.startswith("int8"):
            fix = fix or _LATENT
        return LayerFacts(
            name=name,
            op=node.op_type,
            N=n,
            K=k,
            activation=activation,
            status=KEPT,
            reason=refusal.reason,
            fix=fix,
            bytes_before=(size := sum(stored_weights(node, constants).values())),
            bytes_after=size,
            **asdict(weights),
        )


def _activation(node: ir.Node, k: int, constants: Constants) -> str:
    """``int8_token``, ``float`` and the like: what is multiplied with weights that stay as they are."""
    try:
        product = read_product(node, constants)
    except Refused:
        return ""
    try:
        scope = _quantized(product, k, constants)[1].scope
    except Refused:
        return "float"
    return f"int8_{scope.name.lower()}"


def _sized(layer: Layer, min_weights: int | None) -> Layer:
    """The layer, if it has a size that is packed."""
    n, k = layer.op.N, layer.op.K
    least = _default_min_weights(layer) if min_weights is None else min_weights
    if n * k < least:
        raise Refused(
            f"it has {n * k} weights; layers with fewer than {least} stay float",
            fix=f"--min-weights {n * k}",
        )
    if k > ops.MAX_K:
        raise Refused(
            f"K = {k} is over the limit of {ops.MAX_K}",
            fix="split the layer along its inputs, and add the outputs of the parts",
        )
    return layer


def _default_min_weights(layer: Layer) -> int:
    """From how many weights on packing is no slower for one token.

    Float activations are compared with a MatMul. A layer with int8 ones is left with the nodes of its
    quantizer, each of which takes longer than the whole op on a small matrix.
    """
    return MIN_FLOAT_WEIGHTS if isinstance(layer.op, TernaryLinear) else 0


def _with_codes(
    name: str, product: Product, ternary: Ternary, constants: Constants, not_int8: Refused | None
) -> Layer:
    """The layer with int8 activations if that is what the graph computes, else with float ones.

    A 1x1 convolution runs over channels in front of the pixels: its Transposes are only paid for by integer
    products, and by no more outputs than inputs.
    """
    is_convolution = product.node.op_type == "Conv"
    n, k = ternary.codes.shape
    if is_convolution and n > k:
        raise Refused("it is a 1x1 convolution with more outputs than inputs, which packing makes slower")
    try:
        if not_int8 is not None:
            raise not_int8
        quantized, activation = _quantized(product, k, constants)
        return _bit_linear(name, quantized, activation, ternary, constants)
    except Refused as refusal:
        if product.is_integer:
            raise Refused(f"it multiplies integers: {refusal.reason}", fix=refusal.fix) from refusal
        if is_convolution:
            reason = f"it is a 1x1 convolution, which packing makes slower: {refusal.reason}"
            raise Refused(reason, fix=refusal.fix) from refusal
        check_structure(ternary)
        layer = _ternary_linear(name, product, ternary, constants)
        return replace(layer, note=f"activations stay float: {refusal.reason}", fix=refusal.fix)


def _quantized(product: Product, k: int, constants: Constants) -> tuple[Product, Activation]:
    """The product and the quantizer in front of it, with no Transpose between them."""
    try:
        return product, match_activation(product.x, k, constants, columns_of_input(product.x_layout))
    except Refused:
        inner = product.before_transpose()
        if inner is None:
            raise
    return _quantized(inner, k, constants)


def _bit_linear(
    name: str, product: Product, activation: Activation, ternary: Ternary, constants: Constants
) -> Layer:
    n, k = ternary.codes.shape
    _check_columns(activation.x, k, columns_of_input(product.x_layout))
    x, x_layout = behind_transposes(activation.x, product.x_layout)
    product, scale_layout = replace(product, x=x, x_layout=x_layout), product.x_layout
    epilogue = read_epilogue(product, activation, n, constants, scale_layout)
    if ternary.scale.shape[1] > 1:
        raise Refused("it has group scales and int8 activations", fix=_SCALES)
    weight_scale = ternary.scale.reshape(-1).astype(np.float64)
    bias_first = bool(epilogue.before.any())
    bias = epilogue.before / (epilogue.gain * weight_scale) if bias_first else epilogue.after
    if bias_first and epilogue.after.any():
        raise Refused("it adds one bias before the activation scale and one behind it", fix=_BIAS)
    op = ops.BitLinear(
        K=k,
        N=n,
        act_scale=activation.form,
        act_scope=activation.scope,
        act_floor=activation.floor,
        act_eps=activation.eps,
        qmax=activation.qmax,
        act_min=activation.low,
        act_max=activation.high,
        bias_before_scale=int(bias_first),
    )
    scale = weight_scale * epilogue.gain
    layer = _layer(name, product, epilogue, constants, op=op, ternary=ternary, scale=scale, bias=bias)
    moves_scale = bool(layer.y_layout) and not activation.dequantised
    if activation.reshapes and (layer.x_layout or moves_scale or product.y_shape):
        raise Refused("its input is reshaped and transposed", fix="quantise behind the Reshape")
    restored = activation.restored or epilogue.restored
    return replace(
        layer,
        reshapes=activation.reshapes,
        restored=restored,
        codes=activation.codes,
        bases=foreign_bases(layer.x, layer.y, constants),
        copies=copies_of(layer.x, layer.y, constants),
    )


def _ternary_linear(name: str, product: Product, ternary: Ternary, constants: Constants) -> Layer:
    n, k = ternary.codes.shape
    _check_columns(product.x, k, columns_of_input(product.x_layout))
    epilogue = read_epilogue(product, None, n, constants)
    op = TernaryLinear(K=k, N=n, group_size=ternary.group_size)
    scale = ternary.scale.astype(np.float64).T * epilogue.gain  # [G, 1] or [G, N]
    return _layer(
        name, product, epilogue, constants, op=op, ternary=ternary, scale=scale, bias=epilogue.after
    )


def _layer(
    name: str,
    product: Product,
    epilogue: Epilogue,
    constants: Constants,
    *,
    op: ops.BitLinear | TernaryLinear,
    ternary: Ternary,
    scale: NDArray[np.float64],
    bias: NDArray[np.float64],
) -> Layer:
    w_scale, bias32 = scale.astype(np.float32), bias.astype(np.float32)
    if not np.isfinite(w_scale).all() or not np.isfinite(bias32).all():
        raise Refused("its scale or bias is not finite in float32", fix="check them before the export")
    check_single(product.x, epilogue.y, constants)
    x_layout, y_layout = minimal(product.x_layout, epilogue.layout)
    return Layer(
        name=name,
        product=product,
        x=product.x,
        y=epilogue.y,
        x_type=type_of(product.x, product),
        y_type=type_of(epilogue.y, product),
        op=op,
        ternary=ternary,
        w_scale=w_scale,
        bias=bias32,
        bytes_before=sum(stored_weights(product.node, constants).values()),
        x_layout=x_layout,
        y_layout=y_layout,
    )


def _check_columns(x: ir.Value, k: int, axis: int) -> None:
    """An input that a quantizer or an Einsum broadcasts to K columns has no tokens of K."""
    if x.shape is None or x.shape.rank() < -axis:
        return
    columns = x.shape[axis]
    if isinstance(columns, int) and columns != k:
        raise Refused(f"its input has {columns} columns, the weight {k}", fix="multiply it at full size")
