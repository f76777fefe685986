"""Evaluate every value whose whole ancestry is constant, whatever its size.

Exporters fold small weights and leave the quantizer of large ones in the graph, so the value decides,
not the spelling. Reductions accumulate in float64: a mean in the storage type of a half-precision model
is wrong by factors, and the codes with it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from bitcc.passes import qonnx
from bitcc.passes._refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

NOT_A_FUNCTION = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike", "Dropout"}
)
"""Standard ops that may give something else each time."""

_FIRST_IR_WITH_CONSTANT_INITIALIZERS = 4  # before, every initializer had to be an input as well


class Constants:
    """The constant values of a model's main graph.

    ``value in constants`` asks, ``constants.array(value)`` evaluates. Nothing is kept between two
    evaluations, and memory maps of external data are closed after each: a model needs no more memory than
    its largest tensor and the temporaries of its quantizer.
    """

    def __init__(self, model: ir.Model) -> None:
        graph = model.graph
        self._opsets = dict(model.opset_imports)
        self._scalars: dict[ir.Value, float | None] = {}
        self._constant: set[ir.Value] = set(graph.initializers.values())
        self._fixed = self._constant.copy()
        if model.ir_version >= _FIRST_IR_WITH_CONSTANT_INITIALIZERS:
            self._constant.difference_update(graph.inputs)  # the caller may override those
        for node in graph:
            if _depends_on(node, self._fixed):
                self._fixed.update(node.outputs)
                if _can_be_evaluated(node) and _depends_on(node, self._constant):
                    self._constant.update(node.outputs)

    def __contains__(self, value: ir.Value | None) -> bool:
        """Whether the value depends on constants alone."""
        return value in self._constant

    def independent_of_inputs(self, value: ir.Value | None) -> bool:
        """Whether the value depends on initializers alone, even if it is not the same at every run."""
        return value in self._fixed

    def array(self, value: ir.Value) -> Array:
        """The value as a numpy array (bfloat16 as ``ml_dtypes.bfloat16``).

        Raises:
            Refused: the value is not constant, or one of its nodes cannot be evaluated.
        """
        if value not in self._constant:
            raise self._why_not_constant(value)
        order = _ancestry(value)
        pending = Counter(v for node in order for v in node.inputs if v is not None)
        arrays: dict[ir.Value, Array] = {}
        for node in order:
            inputs = [None if v is None else _read(v, arrays) for v in node.inputs]
            arrays.update(zip(node.outputs, self._evaluate(node, inputs), strict=False))
            for v in node.inputs:
                if v is not None:
                    pending[v] -= 1
                    if not pending[v]:
                        arrays.pop(v, None)
        return _read(value, arrays)

    def scalar(self, value: ir.Value | None) -> float | None:
        """The value as a float, or None if it is not a constant of one element."""
        if value is None or value not in self._constant:
            return None
        if value not in self._scalars:
            self._scalars[value] = self._scalar(value)
        return self._scalars[value]

    def _scalar(self, value: ir.Value) -> float | None:
        if value.shape is not None and value.shape.is_static() and value.shape.numpy() not in _ONES:
            return None
        array = self.array(value)
        return float(array.reshape(())) if array.size == 1 else None

    def _why_not_constant(self, value: ir.Value) -> Refused:
        order = _ancestry(value)
        for node in order:
            name = node.name or node.outputs[0].name
            if node.op_type in NOT_A_FUNCTION:
                return Refused(
                    f"its weights are drawn at random in every run, by `{name}` ({node.op_type})",
                    fix="export it in eval mode, with a quantizer that rounds the same way every time",
                )
            if not _can_be_evaluated(node) and value in self._fixed:
                return Refused(
                    f"its weights are computed by `{name}`, an op of {node.domain} ({node.op_type})",
                    fix="export the weights as a plain tensor",
                )
        for leaf in (value, *(v for node in order for v in node.inputs if v is not None)):
            if leaf.is_initializer() and leaf not in self._constant:
                return Refused(
                    f"its weight `{leaf.name}` is a graph input too, so that a caller may override it",
                    fix="remove it from those: python -m onnxruntime.tools.remove_initializer_from_input",
                )
        return Refused(f"`{value.name}` is computed at run time, not constant")

    def _evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> Sequence[Array]:
        if node.op_type == "CastLike":
            return [_cast_like(node, inputs[0])]
        try:
            if qonnx.is_quantizer(node):
                return [qonnx.evaluate(node, inputs)]
            if (reduction := _REDUCTIONS.get(node.op_type)) is not None:
                return [_reduce(node, inputs, reduction)]
            return self._by_onnx(node, inputs)
        except Exception as error:  # numpy and the evaluator raise whatever they like
            where = f"`{node.name}` ({node.op_type})"
            raise Refused(
                f"the constant node {where} cannot be evaluated: {error}",
                fix="fold the constants before, for instance with onnxslim or onnxsim",
            ) from error

    def _by_onnx(self, node: ir.Node, inputs: Sequence[Array | None]) -> Sequence[Array]:
        feeds = {str(v.name): a for v, a in zip(node.inputs, inputs, strict=True) if v is not None}
        opset = max(self._opsets.get("", 0), _EVALUATED_SINCE.get(node.op_type, 0))
        function = onnx.helper.make_function(
            "bitcc.constant",  # not a node alone: the evaluator would take that for the newest opset
            "node",
            list(feeds),
            [str(v.name) for v in node.outputs],
            [ir.to_proto(node)],
            [onnx.helper.make_opsetid("", opset)],
        )
        outputs: Any = ReferenceEvaluator(function).run(None, feeds, {})
        return list(outputs)


def _can_be_evaluated(node: ir.Node) -> bool:
    standard = node.domain in {"", "ai.onnx"} and node.op_type not in NOT_A_FUNCTION
    return standard or qonnx.is_quantizer(node)


def _depends_on(node: ir.Node, values: set[ir.Value]) -> bool:
    """Whether the node reads nothing else, and has no graph that might."""
    if any(a.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for a in node.attributes.values()):
        return False
    used = node.inputs[:1] if node.op_type == "CastLike" else node.inputs
    return all(v is None or v in values for v in used) and bool(node.outputs)


_EVALUATED_SINCE = {"DequantizeLinear": 19}  # means the same before, but onnx's evaluator has no older one
_ONES = ((), (1,), (1, 1), (1, 1, 1))


def _ancestry(value: ir.Value) -> list[ir.Node]:
    """The nodes that a value depends on, producers first."""
    order: list[ir.Node] = []
    seen: set[ir.Node] = set()
    stack: list[tuple[ir.Node, bool]] = []
    if (root := value.producer()) is not None:
        stack.append((root, False))
    while stack:
        node, inputs_done = stack.pop()
        if inputs_done:
            order.append(node)
            continue
        if node in seen:
            continue
        seen.add(node)
        stack.append((node, True))
        used = node.inputs[:1] if node.op_type == "CastLike" else node.inputs
        producers = (v.producer() for v in used if v is not None)
        stack.extend((p, False) for p in producers if p is not None and p not in seen)
    return order


def _read(value: ir.Value, arrays: dict[ir.Value, Array]) -> Array:
    if value in arrays:
        return arrays[value]
    if value.const_value is None or value.producer() is not None:
        return np.zeros(0)  # the second input of a CastLike: only its type counts
    try:
        return _load(value.const_value)
    except Exception as error:  # a damaged tensor raises whatever numpy and onnx_ir like
        raise Refused(f"the tensor `{value.name}` cannot be read: {error}") from error


def _load(tensor: ir.TensorProtocol) -> Array:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    copy = np.array(tensor.numpy())  # a view would keep the map open, and its pages in memory
    tensor.release()
    return copy


def _cast_like(node: ir.Node, array: Array | None) -> Array:
    like = node.inputs[1]
    dtype = None if like is None else like.dtype
    return np.asarray(array) if dtype is None else np.asarray(array).astype(dtype.numpy())


def _accumulator_type(array: Array) -> Any:
    return np.float64 if array.dtype.kind not in "iub" else array.dtype


def _mean(array: Array, axis: Any, *, keepdims: bool) -> Array:
    return np.asarray(np.mean(array, axis=axis, keepdims=keepdims, dtype=_accumulator_type(array)))


def _sum(array: Array, axis: Any, *, keepdims: bool) -> Array:
    return np.asarray(np.sum(array, axis=axis, keepdims=keepdims, dtype=_accumulator_type(array)))


def _l1(array: Array, axis: Any, *, keepdims: bool) -> Array:
    return _sum(np.abs(array), axis, keepdims=keepdims)


def _sum_square(array: Array, axis: Any, *, keepdims: bool) -> Array:
    return _sum(np.square(array.astype(_accumulator_type(array))), axis, keepdims=keepdims)


def _l2(array: Array, axis: Any, *, keepdims: bool) -> Array:
    return np.sqrt(_sum_square(array, axis, keepdims=keepdims))


_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "ReduceMean": _mean,
    "ReduceSum": _sum,
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceSumSquare": _sum_square,
}


def _reduce(node: ir.Node, inputs: Sequence[Array | None], reduction: Callable[..., Array]) -> Array:
    array = np.asarray(inputs[0])
    axes = node.attributes.get_ints("axes")
    if len(inputs) > 1 and inputs[1] is not None:
        axes = [int(axis) for axis in inputs[1].reshape(-1)]
    if not axes and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        return array
    keepdims = node.attributes.get_int("keepdims", 1) != 0
    result = reduction(array, tuple(axes) if axes else None, keepdims=keepdims)
    return result.astype(array.dtype)
