"""A model of many copies of one layer, side by side; the weights of every copy have pages of their own.

Each copy has its own input and output: copies that shared one would let onnxruntime quantize it only once.
And each has other weights: onnxruntime keeps one prepacked form of those that are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bitcc import ops, runtime, runtime_ops
from bitcc.bench import cores

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bitcc.bench.contenders import Contender, Layer

    Array = NDArray[Any]

_DATA = "weights.bin"
_ALIGNMENT = 4096
_SMALL = 1024  # bytes; smaller constants that are no weights are shared by the copies
_OPSETS = [("", 17), ("com.microsoft", 1), (ops.DOMAIN, ops.OPSET)]
_IR_VERSION = 8


@dataclass(frozen=True)
class Stack:
    """Such a model.

    Attributes:
        path: The file.
        copies: Layers in it.
        weight_bytes: Constants that one layer reads.
        needs_library: Whether a session of it needs our op library.
        element: The type of x and y.
        device: Where it runs and x and y are: ``cpu`` or ``cuda``.
    """

    path: Path
    copies: int
    weight_bytes: int
    needs_library: bool = False
    element: type[np.floating[Any]] = np.float32
    device: str = "cpu"
    in_session: ClassVar[bool] = True
    computes: ClassVar[bool] = True

    def open(self, x: NDArray[np.float32], threads: int, library: Path) -> Runner:
        """A session of the model; ``x`` is the input of every copy."""
        own = library if self.needs_library else None
        return Runner(self.path, x.astype(self.element, copy=False), threads, own, self.device)


def write(folder: Path, contender: Contender, layer: Layer, stream_bytes: int = 0) -> Stack:
    """Write the layer to a new folder, so often that its copies hold ``stream_bytes`` at least."""
    tensors = contender.tensors(layer)
    weight_bytes = sum(array.nbytes for array in tensors.values())
    copies = max(1, -(-stream_bytes // max(1, weight_bytes)))
    one, other = (contender.tensors(layer.head(copy)) for copy in (0, 1))
    same = {name for name in tensors if np.array_equal(one[name], other[name])}
    shared = {name: array for name, array in tensors.items() if name in same and array.nbytes < _SMALL}
    large = {name: array for name, array in tensors.items() if name not in shared}
    initializers = [numpy_helper.from_array(array, name) for name, array in shared.items()]
    nodes: list[NodeProto] = []
    folder.mkdir()
    with (folder / _DATA).open("wb") as data:
        for copy in range(copies):
            heads = contender.tensors(layer.head(copy))
            for name, first in large.items():
                array = _with_head(first, heads[name])
                offset = data.seek(-(-data.tell() // _ALIGNMENT) * _ALIGNMENT)
                data.write(array.data)
                initializers.append(_external(f"{name}{copy}", array, offset))
            nodes += [_renamed(node, copy, shared) for node in contender.nodes(layer)]
    (tokens, k), n = layer.x.shape, len(layer.weights)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(contender.element))
    inputs = [_value(f"x{i}", kind, tokens, k) for i in range(copies)]
    outputs = [_value(f"y{i}", kind, tokens, n) for i in range(copies)]
    graph = helper.make_graph(nodes, contender.name, inputs, outputs, initializers)
    opsets = [helper.make_opsetid(*opset) for opset in _OPSETS]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return Stack(path, copies, weight_bytes, contender.needs_library, contender.element)


def _with_head(array: Array, head: Array) -> Array:
    """A copy of a tensor with the part that belongs to the first rows of the layer replaced."""
    axes = [i for i, sizes in enumerate(zip(array.shape, head.shape, strict=True)) if len({*sizes}) > 1]
    if not axes:  # the head is the whole layer, or the tensor has nothing to do with rows
        return head
    replaced = array.copy()
    np.moveaxis(replaced, axes[0], 0)[: head.shape[axes[0]]] = np.moveaxis(head, axes[0], 0)
    return replaced


def _external(name: str, array: Array, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": _DATA, "offset": offset, "length": array.nbytes}.items():
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
    return tensor


def _renamed(node: NodeProto, copy: int, shared: dict[str, Array]) -> NodeProto:
    renamed = NodeProto()
    renamed.CopyFrom(node)
    for names in (renamed.input, renamed.output):
        for i, name in enumerate(names):
            names[i] = name if name in shared else f"{name}{copy}"
    return renamed


def _value(name: str, kind: int, rows: int, columns: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [rows, columns])


def session_options(threads: int) -> ort.SessionOptions:
    """Those of a session that is timed: its threads have a core each, the first one the caller's."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    workers = cores.find()[1:threads]
    if len(workers) == threads - 1 > 0:
        numbers = ";".join(str(cpu + 1) for cpu in workers)  # onnxruntime counts from 1
        options.add_session_config_entry("session.intra_op_thread_affinities", numbers)
    return options


class Runner:
    """A session of such a model with its inputs and outputs bound; calling it runs all copies once.

    On a GPU x and y are in its memory, and a call ends when the GPU is done.
    """

    def __init__(
        self,
        model: Path,
        x: NDArray[np.floating[Any]],
        threads: int,
        library: Path | None = None,
        device: str = "cpu",
    ) -> None:
        options = session_options(threads)
        if library is not None:
            runtime_ops.register(options, library)
        providers: tuple[str, ...] = runtime.CPU if device == "cpu" else runtime.WITH_CUDA
        self._session = ort.InferenceSession(str(model), options, providers=list(providers))
        self._binding = self._session.io_binding()
        value = ort.OrtValue.ortvalue_from_numpy(x, device)
        for wanted in self._session.get_inputs():
            self._binding.bind_ortvalue_input(wanted.name, value)
        self._outputs = []
        for made in self._session.get_outputs():
            output = ort.OrtValue.ortvalue_from_shape_and_type(made.shape, x.dtype, device)
            self._binding.bind_ortvalue_output(made.name, output)
            self._outputs.append(output)

    def __call__(self) -> None:
        """Run all copies."""
        self._session.run_with_iobinding(self._binding)

    def outputs(self) -> list[Array]:
        """What the last run made, copy by copy."""
        return [output.numpy() for output in self._outputs]
