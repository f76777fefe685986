"""Evaluate every value whose whole ancestry is constant, whatever its size.

Exporters fold small weights and leave the quantizer of large ones in the graph, so the value decides,
not the spelling. Element-wise nodes over whole weights are evaluated in blocks (``elementwise``). Reductions
accumulate in float64: a mean in the storage type of a half-precision model is wrong by factors, and the
codes with it.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from bitcc.passes import elementwise, gathered, qonnx, reductions, sequences, sizes
from bitcc.passes._refused import Refused
from bitcc.passes.contrib_quantizers import as_standard, is_contrib_quantizer
from bitcc.passes.elementwise import Elementwise
from bitcc.passes.integer_types import in_one_type
from bitcc.passes.picked import picked

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

NOT_A_FUNCTION = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike", "Dropout"}
)
"""Standard ops that may give something else each time."""

_FIRST_IR_WITH_CONSTANT_INITIALIZERS = 4  # before, every initializer had to be an input as well


class Constants:
    """The constant values of a model: of its graph, and of the bodies of If, Loop and Scan in it.

    ``value in constants`` asks, ``constants.array(value)`` evaluates. Only single numbers are kept between
    two evaluations, and external data is mapped only as long as what was read of it is in use: a model
    needs no more memory than its largest tensor.
    """

    def __init__(self, model: ir.Model) -> None:
        self._opsets = dict(model.opset_imports)
        self._scalars: dict[ir.Value, float | None] = {}
        self._numbers: dict[ir.Value, Array] = {}  # results of nodes
        self._constant: set[ir.Value] = {v for graph in model.graphs() for v in graph.initializers.values()}
        self._fixed = self._constant.copy()
        if model.ir_version >= _FIRST_IR_WITH_CONSTANT_INITIALIZERS:
            self._constant.difference_update(model.graph.inputs)  # the caller may override those
        for node in model.graph.all_nodes():
            if _depends_on(node, self._fixed):
                self._fixed.update(node.outputs)
                if _can_be_evaluated(node) and _depends_on(node, self._constant):
                    self._constant.update(node.outputs)
        self._picked = picked(model, self._fixed, _depends_on)

    def __contains__(self, value: ir.Value | None) -> bool:
        """Whether the value depends on constants alone."""
        return value in self._constant

    def independent_of_inputs(self, value: ir.Value | None) -> bool:
        """Whether it depends on initializers alone, even if it is another at every run or turn of a loop."""
        return value in self._fixed

    def array(self, value: ir.Value) -> Array:
        """The value as a numpy array (bfloat16 as ``ml_dtypes.bfloat16``).

        Raises:
            Refused: the value is not constant, or one of its nodes cannot be evaluated.
        """
        return _whole(self._evaluated(value))

    def elementwise(self, value: ir.Value) -> Elementwise:
        """The value as what is left to compute element by element.

        Raises:
            Refused: the value is not constant, or one of its nodes cannot be evaluated.
        """
        found = self._evaluated(value)
        return (
            found if isinstance(found, Elementwise) else Elementwise(value, (), {value: found}, found.shape)
        )

    def _evaluated(self, value: ir.Value) -> Array | Elementwise:
        if value not in self._constant:
            raise self._why_not_constant(value)
        order = _ancestry(value, self._numbers)
        pending = Counter(v for node in order for v in node.inputs if v is not None)
        most = sizes.limit(order, value)
        known: dict[ir.Value, Array | Elementwise] = {}
        for node in order:
            inputs = [None if v is None else self._read(v, known) for v in node.inputs]
            for output, result in zip(node.outputs, self._evaluate(node, inputs, most), strict=False):
                known[output] = result
                if not isinstance(result, Elementwise) and result.size == 1 and result.dtype != object:
                    self._numbers[output] = result
            for v in node.inputs:
                if v is not None:
                    pending[v] -= 1
                    if not pending[v]:
                        known.pop(v, None)
        return self._read(value, known)

    def _read(self, value: ir.Value, known: dict[ir.Value, Array | Elementwise]) -> Array | Elementwise:
        if value in known:
            return known[value]
        return self._numbers[value] if value in self._numbers else _initializer(value)

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
        return float(array.reshape(())) if array.size == 1 and array.dtype != object else None

    def _why_not_constant(self, value: ir.Value) -> Refused:
        order = _ancestry(value, ())
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
            if leaf in self._picked:
                return Refused(
                    "its weights are others in every turn of the loop that it is in",
                    fix="export the layers one by one, with a Python loop in place of a scan or while_loop",
                )
            if leaf.is_initializer() and leaf not in self._constant:
                return Refused(
                    f"its weight `{leaf.name}` is a graph input too, so that a caller may override it",
                    fix="remove it from those: python -m onnxruntime.tools.remove_initializer_from_input",
                )
        return Refused(f"`{value.name}` is computed at run time, not constant")

    def _evaluate(
        self, node: ir.Node, inputs: Sequence[Array | Elementwise | None], most: int
    ) -> Sequence[Array | Elementwise]:
        """The outputs of a node, none of more than ``most`` bytes."""
        try:
            if (stored := _stored(node)) is not None:
                return [_load(stored)]
            if node.op_type == "CastLike":
                return [_cast_like(node, inputs[0])]
            if elementwise.is_elementwise(node, [None if a is None else a.dtype for a in inputs]):
                sizes.check_broadcast(node, inputs, most)
                return [_elementwise(node, inputs)]
            if reductions.is_reduction(node) and inputs[0] is not None:
                axes = inputs[1] if len(inputs) > 1 else None
                return [reductions.reduce(node, inputs[0], None if axes is None else _whole(axes))]
            whole = in_one_type(node, [None if a is None else _whole(a) for a in inputs])
            return self._of_whole(node, whole, most)
        except Refused:
            raise
        except Exception as error:  # numpy and the evaluator raise whatever they like
            where = f"`{node.name}` ({node.op_type})"
            raise Refused(
                f"the constant node {where} cannot be evaluated: {error}",
                fix="fold the constants before, for instance with onnxslim or onnxsim",
            ) from error

    def _of_whole(self, node: ir.Node, inputs: Sequence[Array | None], most: int) -> Sequence[Array]:
        if sequences.is_of_sequence(node):
            return [sequences.evaluate(node, inputs)]
        if qonnx.is_quantizer(node):
            sizes.check_broadcast(node, inputs, most)
            return [qonnx.evaluate(node, inputs)]
        if gathered.is_gather_elements(node):
            return [gathered.evaluate(node, inputs)]
        sizes.check_outputs(node, inputs, self._opsets.get("", 0), most)
        return self._by_onnx(node, inputs)

    def _by_onnx(self, node: ir.Node, inputs: Sequence[Array | None]) -> Sequence[Array]:
        feeds = {str(v.name): a for v, a in zip(node.inputs, inputs, strict=True) if v is not None}
        proto, opset = as_standard(node, self._opsets.get("", 0))
        opset = max(opset, _EVALUATED_SINCE.get(node.op_type, 0))
        function = onnx.helper.make_function(
            "bitcc.constant",  # not a node alone: the evaluator would take that for the newest opset
            "node",
            list(feeds),
            [str(v.name) for v in node.outputs],
            [proto],
            [onnx.helper.make_opsetid("", opset)],
        )
        outputs: Any = ReferenceEvaluator(function).run(None, feeds, {})
        return list(outputs)


def _can_be_evaluated(node: ir.Node) -> bool:
    standard = node.domain in {"", "ai.onnx"} and node.op_type not in NOT_A_FUNCTION
    return standard or qonnx.is_quantizer(node) or is_contrib_quantizer(node)


def _depends_on(node: ir.Node, values: set[ir.Value]) -> bool:
    """Whether the node reads nothing else, and has no graph that might."""
    if any(a.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for a in node.attributes.values()):
        return False
    used = node.inputs[:1] if node.op_type == "CastLike" else node.inputs
    return all(v is None or v in values for v in used) and bool(node.outputs)


_EVALUATED_SINCE = {"DequantizeLinear": 19}  # means the same before, but onnx's evaluator has no older one
_LARGE = 1 << 14  # elements: fewer are evaluated at once
_ONES = ((), (1,), (1, 1), (1, 1, 1))


def _ancestry(value: ir.Value, known: Container[ir.Value]) -> list[ir.Node]:
    """The nodes that a value depends on, producers first, as far as values are not known."""
    order: list[ir.Node] = []
    seen: set[ir.Node] = set()
    stack: list[tuple[ir.Node, bool]] = []
    if (root := value.producer()) is not None and value not in known:
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
        producers = (v.producer() for v in used if v is not None and v not in known)
        stack.extend((p, False) for p in producers if p is not None and p not in seen)
    return order


def _initializer(value: ir.Value) -> Array:
    if value.const_value is None or value.producer() is not None:
        return np.zeros(0)  # the second input of a CastLike: only its type counts
    try:
        return _load(value.const_value)
    except Exception as error:  # a damaged tensor raises whatever numpy and onnx_ir like
        raise Refused(f"the tensor `{value.name}` cannot be read: {error}") from error


def _stored(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a Constant, which may be in another file."""
    value = node.attributes.get("value") if node.op_type == "Constant" else None
    return None if value is None else value.as_tensor()


def _load(tensor: ir.TensorProtocol) -> Array:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    array = tensor.numpy()  # checks the file; its own map would stay as long as the model
    dtype, shape, offset = array.dtype, array.shape, tensor.offset or 0
    if tensor.dtype.bitwidth < 8 or not array.size:
        array = np.array(array)
    else:
        array = np.asarray(np.memmap(tensor.path, dtype, "r", offset, shape))
    tensor.release()
    return array


def _whole(array: Array | Elementwise) -> Array:
    return array.whole() if isinstance(array, Elementwise) else array


def _elementwise(node: ir.Node, inputs: Sequence[Array | Elementwise | None]) -> Array | Elementwise:
    """The node over its inputs: at once if they are small, else as one more step of what is left to do."""
    if node.op_type == "Identity" and isinstance(inputs[0], np.ndarray):
        return inputs[0]
    shape = np.broadcast_shapes(*(a.shape for a in inputs if a is not None))
    if len(shape) < 2 or math.prod(shape) < _LARGE:
        return elementwise.apply(node, [None if a is None else _whole(a) for a in inputs])
    nodes: dict[ir.Node, None] = {}
    leaves: dict[ir.Value, Array] = {}
    for value, array in zip(node.inputs, inputs, strict=True):
        if isinstance(array, Elementwise) and array.shape == shape and array.value is value:
            nodes.update(dict.fromkeys(array.nodes))
            leaves.update(array.leaves)
        elif value is not None and array is not None:
            leaves[value] = _whole(array)
    return Elementwise(node.outputs[0], (*nodes, node), leaves, shape)


def _cast_like(node: ir.Node, array: Array | Elementwise | None) -> Array | Elementwise:
    like = node.inputs[1]
    dtype = None if like is None else like.dtype
    if array is None:
        raise ValueError("it has no input")
    return array if dtype is None else _whole(array).astype(dtype.numpy())
