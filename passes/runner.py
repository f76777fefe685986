"""Run nodes of a model in onnxruntime as they are; layers of one structure share a session."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx_ir as ir

from bitcc.errors import first_line
from bitcc.passes._refused import Refused
from bitcc.passes.between import HALVES
from bitcc.passes.normal_form import producer

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

Declared: TypeAlias = "tuple[ir.DataType, tuple[int, ...] | None]"
Run: TypeAlias = "Callable[[Mapping[ir.Value, Array]], Array]"
_IR_VERSION = 10
_KEPT_SESSIONS = 8
_REPEATS = ("Expand", "Identity", "Reshape", "Unsqueeze")


class Runner:
    """Sessions of pieces of one model, without optimisations, on one thread."""

    def __init__(self, model: ir.Model) -> None:
        self._opsets = dict(model.opset_imports)
        self._ir_version = min(model.ir_version, _IR_VERSION)
        self._sessions: dict[tuple[bytes, bool], Any] = {}

    def prepare(
        self,
        nodes: Sequence[ir.Node],
        inputs: Mapping[ir.Value, Declared],
        output: ir.Value,
        *,
        widened: bool = False,
        in_blocks: bool = False,
    ) -> Run:
        """A function from the inputs' values to that of the output.

        Args:
            nodes: In graph order.
            inputs: What they read from outside, of what type, and of what shape if that is always the same.
            output: What to compute.
            widened: Whether to compute in float32 what they compute in half precision.
            in_blocks: Whether it runs for many blocks of one size: then memory is kept between them, for
                what onnxruntime takes anew each time makes holes in the heap, which grows.

        Raises:
            Refused: onnxruntime does not run these nodes; so does the function.
        """
        proto = self._proto(nodes, inputs, output, widened=widened)
        names = {v: f"v{i}" for i, v in enumerate(inputs)}
        session = self._session(proto, in_blocks=in_blocks)

        def run(values: Mapping[ir.Value, Array]) -> Array:
            feeds = {names[v]: array for v, array in values.items()}
            try:
                result: Array = session.run(None, feeds)[0]
            except Exception as error:  # onnxruntime's errors have no common base
                raise _unproven(error) from error
            return result

        return run

    def _session(self, proto: bytes, *, in_blocks: bool) -> Any:
        import onnxruntime as ort  # noqa: PLC0415 - heavy, and only needed to prove

        key = proto, in_blocks
        if key not in self._sessions:
            options = ort.SessionOptions()
            options.log_severity_level = 4
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.intra_op_num_threads = 1
            options.enable_cpu_mem_arena = in_blocks
            try:
                session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime's errors have no common base
                raise _unproven(error) from error
            while len(self._sessions) >= _KEPT_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[key] = session
        return self._sessions[key]

    def _proto(
        self,
        nodes: Sequence[ir.Node],
        inputs: Mapping[ir.Value, Declared],
        output: ir.Value,
        *,
        widened: bool,
    ) -> bytes:
        """A model of the nodes whose names say only the order: layers of one structure give equal bytes."""
        clones = {v: _declare(f"v{i}", *declared) for i, (v, declared) in enumerate(inputs.items())}
        numbers = {v for v, (_, shape) in inputs.items() if shape is not None and math.prod(shape) == 1}
        feeds = list(clones.values())
        copies = []
        for node in nodes:
            rounds = widened and _rounds_a_number(node, numbers)
            copy = ir.Node(
                node.domain,
                node.op_type,
                [None if v is None else clones[v] for v in node.inputs],
                [_exact(_widened(a) if widened and not rounds else a) for a in node.attributes.values()],
                num_outputs=len(node.outputs),
            )
            if rounds:
                copy.outputs[0].name = f"v{len(clones)}_rounded"
                copies.append(copy)
                copy = ir.Node("", "Cast", copy.outputs, [ir.AttrInt64("to", ir.DataType.FLOAT)])
            for old, new in zip(node.outputs, copy.outputs, strict=True):
                new.name = f"v{len(clones)}"
                clones[old] = new
            copies.append(copy)
        clones[output].type = ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph(feeds, [clones[output]], nodes=copies, opset_imports=self._opsets, name="piece")
        proto = ir.to_proto(ir.Model(graph, ir_version=self._ir_version))
        return bytes(proto.SerializeToString(deterministic=True))


def _declare(name: str, dtype: ir.DataType, shape: tuple[int, ...] | None) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=None if shape is None else ir.Shape(shape))


def _widened(attribute: ir.Attr) -> ir.Attr:
    """A Cast to half precision becomes one to float32, and so does a tensor that fills a shape."""
    if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in HALVES:
        return ir.AttrTensor(attribute.name, ir.tensor(attribute.as_tensor().numpy().astype(np.float32)))
    is_cast = attribute.name == "to" and attribute.type == ir.AttributeType.INT
    return ir.AttrInt64("to", ir.DataType.FLOAT) if is_cast and attribute.value in HALVES else attribute


def _rounds_a_number(node: ir.Node, numbers: Container[ir.Value]) -> bool:
    """Whether a Cast rounds one number, which may fill a tensor, to half precision."""
    if node.op_type != "Cast" or node.attributes.get_int("to", 0) not in HALVES:
        return False
    value = node.inputs[0]
    while (made_by := producer(value, *_REPEATS)) is not None:
        value = made_by.inputs[0]
    return value in numbers or producer(value, "ConstantOfShape") is not None


def _exact(attribute: ir.Attr) -> ir.Attr:
    """A MatMulNBits may round its activations to int8: what it asks for is float32 or less exact."""
    return ir.AttrInt64(attribute.name, 1) if attribute.name == "accuracy_level" else attribute


def _unproven(error: Exception) -> Refused:
    return Refused(
        f"onnxruntime cannot run its original nodes, so that nothing is proven: {first_line(error)}",
        fix="update onnxruntime, or export the model for a newer opset",
    )
