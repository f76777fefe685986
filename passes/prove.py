"""Check one rewrite before it is made: the original nodes in onnxruntime against the op's spec.

The original part of the graph, from the layer's input to its output, runs without optimisations on random
and adversarial tokens. Only reductions of weights are taken from bitcc's own evaluation, which accumulates
in float64: a mean that a runtime sums in another order can move a weight code by one.

Half-precision layers are compared in float32, with the weights as half precision rounded them: there the
original's rounded scales and codes are noise of some percent, and onnxruntime cannot run bfloat16 at all.
So are layers whose float32 weights carry the noise of half precision around their levels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from bitcc import formats, ops, ternary_linear
from bitcc.passes._refused import Refused
from bitcc.passes.layout import inverse, transposed
from bitcc.passes.matmul import as_read, weight_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants
    from bitcc.passes.detect import Layer

    Array = NDArray[Any]

TOLERANCE = 1e-5
_HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_HALF_TYPES = frozenset(h.numpy() for h in _HALVES)
_KINDS = 8
_MOST_TOKENS = 4096
_IR_VERSION = 10


def largest_error(layer: Layer, packed: formats.Bytes, model: ir.Model, constants: Constants) -> float:
    """The largest difference between the layer as it was and as it will be, relative to max|y| of a token.

    Raises:
        Refused: onnxruntime cannot run the original nodes, so that nothing is proven, or they use
            something else of the graph.
    """
    session, feeds = _original(layer, model, constants)
    worst = 0.0
    for x in tokens(layer):
        try:
            fed = {**feeds, str(layer.x.name): transposed(x, inverse(layer.x_layout))}
            want = transposed(session.run(None, fed)[0].astype(np.float64), inverse(layer.y_layout))
        except Exception as error:
            raise _unproven(error) from error
        got = _computed(layer, packed, x).astype(np.float64)
        if layer.shape is not None and got.size == want.size:
            got = got.reshape(want.shape)
        if want.shape != got.shape:
            return float("inf")
        worst = float(np.maximum(worst, _difference(got, want)))  # np.maximum keeps NaN, max() drops it
    return worst


def _original(layer: Layer, model: ir.Model, constants: Constants) -> tuple[Any, dict[str, Array]]:
    """A session of the original nodes and what it is fed besides x.

    With the nodes that compute the weight if onnxruntime takes them; otherwise with its values.
    """
    import onnxruntime as ort  # noqa: PLC0415 - heavy, and only needed to prove

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    loose = in_half_precision(layer) or layer.ternary.noisy
    for evaluated in (True,) if loose else (False, True):
        proto, feeds = _extract(layer, model, constants, loose=evaluated)
        try:
            return ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"]), feeds
        except Exception as error:
            if evaluated:
                raise _unproven(error) from error
    raise AssertionError  # the last turn returns or raises


def _unproven(error: Exception) -> Refused:
    words = (str(error).strip() or repr(error)).splitlines()[0]
    return Refused(
        f"onnxruntime cannot run its original nodes, so that nothing is proven: {words}",
        fix="update onnxruntime, or export the model for a newer opset",
    )


def _computed(layer: Layer, packed: formats.Bytes, x: Array) -> Array:
    """What the op that replaces the layer gives, by its spec."""
    if isinstance(layer.op, ops.BitLinear):
        op = replace(layer.op, act_type=ops.ActType.FLOAT)
        return ops.reference(x, packed, layer.w_scale, layer.bias, op)
    return ternary_linear.reference(x, packed, layer.w_scale, layer.bias, layer.op)


def _difference(got: Array, want: Array) -> float:
    """The largest over the tokens of max|got - want| / max|want|; NaN where only one of them is NaN."""
    both = np.isnan(got) & np.isnan(want)
    got, want = np.where(both, 0, got), np.where(both, 0, want)
    scale = np.max(np.abs(want), axis=-1, keepdims=True)
    return float(np.max(np.abs(got - want) / np.where(scale == 0, 1, scale), initial=0.0))


def tokens(layer: Layer) -> Iterator[Array]:
    """Inputs of the layer's rank: ordinary tokens, heavy tails, tiny, huge, zero, and exact halves.

    Where tokens share a scale, each input is of one kind: a huge token would leave the others no codes.
    """
    shape = _shape(layer)
    rng = np.random.default_rng(layer.op.N * 65537 + layer.op.K)
    rows = max(int(np.prod(shape[:-1])), 1)
    k = layer.op.K
    count = -(-_KINDS // rows) * rows
    tokens = rng.standard_normal((count, k))
    tokens[1] = rng.standard_t(3, k)
    tokens[2, rng.integers(k)] = 60
    tokens[3] *= 1e3
    tokens[4] *= 1e-7
    tokens[5] = 0
    tokens[6] = rng.integers(-127, 127, k) + 0.5
    tokens[6, 0] = 127
    tokens = tokens.astype(np.float32)
    if getattr(layer.op, "act_scope", None) is ops.ActScope.TENSOR:
        for kind in tokens[:_KINDS]:
            yield np.stack([np.roll(kind, i) / np.float32(1 + i / rows) for i in range(rows)]).reshape(shape)
        return
    for start in range(0, count - rows + 1, rows):
        yield tokens[start : start + rows].reshape(shape)


def _shape(layer: Layer) -> tuple[int, ...]:
    """Of the input's rank and few tokens, whatever the model declares: what is computed of them is the same.

    A Reshape in front of the product may only take the declared shape.
    """
    declared = () if layer.x.shape is None else tuple(layer.x.shape)
    if layer.shape is not None and all(isinstance(d, int) for d in declared):
        rows = tuple(int(d) for d in declared[:-1] if isinstance(d, int))
        if 0 < math.prod(rows) <= _MOST_TOKENS:
            return (*rows, layer.op.K)
    rank = 2 if layer.x.shape is None else max(layer.x.shape.rank(), 1)
    rows = {1: (), 2: (_KINDS,)}.get(rank, (*(1,) * (rank - 3), _KINDS // 2, _KINDS // 2))
    return (*rows, layer.op.K)


def _extract(
    layer: Layer, model: ir.Model, constants: Constants, *, loose: bool
) -> tuple[bytes, dict[str, Array]]:
    """A model of the nodes between x and y, and the values of its other inputs.

    All constants are evaluated here if ``loose``, and the weight is without the noise around its levels.
    """
    half = in_half_precision(layer)
    nodes, leaves = between(layer, constants, loose=loose)
    if not loose and any(_is_foreign(v) for v in leaves):
        nodes, leaves = between(layer, constants, loose=True)
    arrays = {str(v.name): constants.array(v) for v in leaves}
    if half:
        arrays = {n: a.astype(np.float32) if a.dtype in _HALF_TYPES else a for n, a in arrays.items()}
    if loose and layer.node.op_type != "MatMulNBits":
        arrays[str(layer.product.weight.name)] = _snapped(layer, constants)
    inputs = [_declare(str(layer.x.name), ir.DataType.FLOAT, None)]
    inputs += [_declare(n, ir.DataType.from_numpy(a.dtype), a.shape) for n, a in arrays.items()]
    by_name = {v.name: v for v in inputs}
    clones: dict[ir.Value, ir.Value] = {v: by_name[v.name] for v in (layer.x, *leaves)}
    copied = []
    for node in nodes:
        copy = ir.Node(
            node.domain,
            node.op_type,
            [None if v is None else clones[v] for v in node.inputs],
            [_exact(_widened(a) if half else a) for a in node.attributes.values()],
            num_outputs=len(node.outputs),
            name=node.name,
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name = old.name
            clones[old] = new
        copied.append(copy)
    output = clones[layer.y]
    output.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(inputs, [output], nodes=copied, opset_imports=dict(model.opset_imports), name="layer")
    proto = ir.to_proto(ir.Model(graph, ir_version=min(model.ir_version, _IR_VERSION)))
    return proto.SerializeToString(), arrays


def _is_foreign(value: ir.Value) -> bool:
    """Whether numpy does not know its type, such as bfloat16 or int4: onnxruntime takes no such array."""
    return value.dtype is not None and value.dtype.numpy().kind == "V"


def _snapped(layer: Layer, constants: Constants) -> Array:
    """The weight as the product reads it, without the noise around its levels.

    Raises:
        Refused: it is not those levels that the weight is nearest to.
    """
    scale = np.repeat(layer.ternary.scale, layer.ternary.group_size, axis=1)
    dense = layer.ternary.codes.astype(np.float32) * scale
    weight = weight_matrix(layer.node, constants).astype(np.float32)
    if not (np.abs(weight - dense) < scale / 2).all():
        raise Refused("packed, its weights are not those of the original")
    return as_read(layer.product, dense, constants)


def in_half_precision(layer: Layer) -> bool:
    """Whether the original computes this layer, or a part of it, in float16 or bfloat16."""
    return bool(_HALVES & {layer.x_type, layer.y_type, layer.node.outputs[0].dtype})


def _widened(attribute: ir.Attr) -> ir.Attr:
    """A Cast to half precision becomes one to float32."""
    is_cast = attribute.name == "to" and attribute.type == ir.AttributeType.INT
    return ir.AttrInt64("to", ir.DataType.FLOAT) if is_cast and attribute.value in _HALVES else attribute


def _exact(attribute: ir.Attr) -> ir.Attr:
    """A MatMulNBits may round its activations to int8: what it asks for is float32 or less exact."""
    return ir.AttrInt64(attribute.name, 1) if attribute.name == "accuracy_level" else attribute


def _declare(name: str, dtype: ir.DataType, shape: tuple[int, ...] | None) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=None if shape is None else ir.Shape(shape))


def between(layer: Layer, constants: Constants, *, loose: bool) -> tuple[list[ir.Node], list[ir.Value]]:
    """(nodes in graph order, leaves) of the graph between x and y; all constants are leaves if ``loose``."""
    nodes: set[ir.Node] = set()
    leaves: dict[ir.Value, None] = {}
    stack = [layer.y]
    while stack:
        value = stack.pop()
        if value is layer.x or value in leaves:
            continue
        node = value.producer()
        constant = value in constants
        reduced = constant and (loose or (node is not None and node.op_type.startswith("Reduce")))
        if node is None and not constant:
            raise Refused("its nodes cannot be told apart from those in front of it")
        if node is None or reduced:
            leaves[value] = None
        elif node not in nodes:
            nodes.add(node)
            stack.extend(v for v in node.inputs if v is not None)
    graph = layer.node.graph
    order = [] if graph is None else [node for node in graph if node in nodes]
    return order, list(leaves)
