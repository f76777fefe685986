"""A model file as it is on disk, and what it may not say: readers would drop it, or guess, or hang."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
from onnx import AttributeProto, TensorProto

from bitcc.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_CHECK = "check it with `python -m onnx.checker`, or export it again"


def read(path: Path) -> onnx.ModelProto:
    """The message in a file, without external data.

    Raises:
        ModelError: there is no such file, it is not ONNX, or it says what it may not.
    """
    where = f"`{path}`"
    try:
        is_folder, is_there = path.is_dir(), path.exists()
        model = onnx.load(path, load_external_data=False) if path.is_file() else None
    except OSError as error:
        raise ModelError(f"it cannot be read: {error.strerror}", where=where) from error
    except Exception as error:  # the readers raise whatever protobuf raises
        raise no_model(where) from error
    if model is None:
        raise _no_file(where, is_folder=is_folder, is_there=is_there)
    _check(model, where)
    return model


def check_is_file(path: Path) -> None:
    """Check that there is such a file, whatever is in it.

    Raises:
        ModelError: there is none, or it is a folder, a pipe or a device.
    """
    where = f"`{path}`"
    try:
        is_file, is_folder, is_there = path.is_file(), path.is_dir(), path.exists()
    except OSError as error:
        raise ModelError(f"it cannot be read: {error.strerror}", where=where) from error
    if not is_file:
        raise _no_file(where, is_folder=is_folder, is_there=is_there)


def _no_file(where: str, *, is_folder: bool, is_there: bool) -> ModelError:
    if is_folder:
        hint = "give the .onnx file in it, or for a bundle the model that it was made from"
        return ModelError("it is a folder", where=where, hint=hint)
    if is_there:
        return ModelError(
            "it is a pipe or a device", where=where, hint="give a file: it is read more than once"
        )
    return ModelError("there is no such file", where=where)


def no_model(where: str) -> ModelError:
    """What is said of a file that no reader understands."""
    return ModelError(
        "this is not an ONNX model, or the file is truncated",
        where=where,
        hint=_CHECK,
    )


def _check(model: onnx.ModelProto, where: str) -> None:
    _check_texts(model, where)
    if model.training_info:  # onnx_ir has no place for it
        raise ModelError(
            "it holds training information, which would be lost", where=where, hint="export it for inference"
        )
    nodes = [node for function in model.functions for node in function.node]
    for graph in (model.graph, *_graphs(model.graph.node), *_graphs(nodes)):
        nodes += graph.node
        names = Counter(tensor.name for tensor in graph.initializer)
        twice = next((name for name, count in names.items() if count > 1), None)
        if twice is not None:  # onnx_ir takes the last one and onnxruntime the first
            raise ModelError(
                f"it has more than one initializer `{twice}`", where=where, hint="export the model again"
            )
        for tensor in graph.initializer:
            _check_tensor(tensor, where)
    for node in nodes:
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                if attribute.type in {AttributeProto.TENSOR, AttributeProto.TENSORS}:
                    _check_tensor(tensor, where)


def _check_texts(message: Any, where: str) -> None:
    """Texts that are not UTF-8 are read as bytes, which nothing behind takes for names or writes again."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            for text in [value] if isinstance(value, (str, bytes)) else value:
                if isinstance(text, bytes):
                    problem = f"the `{field.name}` of a {message.DESCRIPTOR.name} is not UTF-8: {text!r:.99}"
                    raise ModelError(problem, where=where, hint=_CHECK)
        elif field.type == field.TYPE_MESSAGE:
            for part in [value] if hasattr(value, "ListFields") else value:
                _check_texts(part, where)


def _graphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """The graphs in attributes of these nodes, and in those of their nodes."""
    for node in nodes:
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                if attribute.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS}:
                    yield graph
                    yield from _graphs(graph.node)


def _check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    if tensor.data_type == TensorProto.UNDEFINED or tensor.data_type not in TensorProto.DataType.values():
        problem = f"the tensor `{tensor.name}` has no type that is known ({tensor.data_type})"
    elif not _holds_its_shape(tensor):
        problem = f"the tensor `{tensor.name}` has not the data for its shape {list(tensor.dims)}"
    else:
        return
    raise ModelError(problem, where=where, hint=_CHECK)


_MOST_IN_A_BYTE = 8  # elements: no type has smaller ones


def _holds_its_shape(tensor: onnx.TensorProto) -> bool:
    """Whether the data has the length that the shape says; of data in another file that is told later.

    Of data that is stored as numbers it is told roughly, and again when they are read: what matters is that
    onnx's shape inference goes through as many elements as a shape says.
    """
    elements: int = math.prod(tensor.dims)
    if any(size < 0 for size in tensor.dims):
        return False
    if tensor.data_location == TensorProto.EXTERNAL:
        return True
    if not tensor.HasField("raw_data"):
        return elements <= _MOST_IN_A_BYTE * int(tensor.ByteSize())
    if tensor.data_type == TensorProto.STRING:
        return False
    return len(tensor.raw_data) == math.ceil(elements * ir.DataType(tensor.data_type).bitwidth / 8)
