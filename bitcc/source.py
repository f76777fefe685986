"""Read a model file, and refuse with a reason what cannot be compiled."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING

import onnx_ir as ir

from bitcc import model_file, ops
from bitcc.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def load(path: Path) -> ir.Model:
    """The model; external data stays on disk until it is read.

    Raises:
        ModelError: no such file, not ONNX, or its external data is missing or too short.
    """
    where = f"`{path}`"
    try:
        model = ir.from_proto(model_file.read(path))
        ir.external_data.set_base_dir(model.graph, path.parent)
    except ModelError:
        raise
    except Exception as error:  # the reader raises whatever it does
        raise model_file.no_model(where) from error
    if not model.opset_imports or not len(model.graph):
        raise ModelError("this is not an ONNX model: it has no opset or no nodes", where=where)
    if "" not in model.opset_imports and "ai.onnx" in model.opset_imports:
        model.opset_imports[""] = model.opset_imports.pop("ai.onnx")  # two names of one domain
    _sort(model, where)
    _check_functions(model, where)
    for tensor in external_tensors(model):
        _check_external(tensor, where)
    return model


def _sort(model: ir.Model, where: str) -> None:
    """Bring the nodes into an order in which every value is made before it is read: some tools append Casts.

    Raises:
        ModelError: there is none, or something is read that nothing makes.
    """
    try:
        model.graph.sort()
    except ValueError as error:
        raise ModelError("its graph has a cycle", where=where) from error
    for graph in model.graphs():
        for node in graph:
            for value in node.inputs:
                if value is None or value.is_graph_input() or value.is_initializer():
                    continue
                if value.producer() is None:
                    fact = f"node `{node.name or node.op_type}` reads `{value.name}`, which nothing makes"
                    hint = "check it with `python -m onnx.checker`; sparse initializers are not supported"
                    raise ModelError(fact, where=where, hint=hint)


def check_not_compiled(model: ir.Model, where: str) -> None:
    """Check that the model has not been compiled before.

    An import of bitcc's domain says nothing: onnxruntime's offline optimiser writes those of every library
    that its process has loaded.

    Raises:
        ModelError: it has.
    """
    if any(node.domain == ops.DOMAIN for node in model.graph.all_nodes()):
        raise ModelError(
            "it has been compiled by bitcc before", where=where, hint="compile the original model instead"
        )


def external_tensors(model: ir.Model) -> Iterable[ir.ExternalTensor]:
    """The tensors of all graphs whose data is in other files: initializers, and attributes of nodes."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value
    for node in model.graph.all_nodes():
        yield from _external_attributes(node)


def location(tensor: ir.ExternalTensor) -> str:
    """The file of a tensor's data below the model's folder, in the one spelling that bundles have."""
    return PurePath(tensor.location).as_posix()


@contextmanager
def reading(model: ir.Model, path: Path | None) -> Iterator[None]:
    """Where the files of a model are read: what the disk refuses of them is told of as such.

    Args:
        model: Its data is read in the block.
        path: Its file; None for one in memory.

    Raises:
        ModelError: a file of the model could not be read; other errors are left as they are.
    """
    files = {Path(tensor.path) for tensor in external_tensors(model)} | ({path} if path else set())
    try:
        yield
    except OSError as error:
        if error.filename is None or Path(error.filename) not in files:
            raise
        problem = f"`{error.filename}` cannot be read: {error.strerror}"
        raise ModelError(problem, where=f"`{path or 'the model'}`") from error


def _external_attributes(node: ir.Node) -> Iterable[ir.ExternalTensor]:
    for attribute in node.attributes.values():
        if attribute.type in {ir.AttributeType.TENSOR, ir.AttributeType.TENSORS} and not attribute.is_ref():
            single = attribute.type == ir.AttributeType.TENSOR
            tensors = [attribute.value] if single else attribute.value
            yield from (tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor))


def _check_functions(model: ir.Model, where: str) -> None:
    """Nothing says which folder the data of a function's tensors would be in.

    Raises:
        ModelError: a function has such a tensor.
    """
    for function in model.functions.values():
        for node in function.all_nodes():
            for tensor in _external_attributes(node):
                fact = f"the tensor `{tensor.name}` of its function `{function.name}` is in another file"
                raise ModelError(fact, where=where, hint="store it in the model file")


def _check_external(tensor: ir.ExternalTensor, where: str) -> None:
    path = Path(tensor.path)
    try:
        outside = _may_leave(str(tensor.location)) or not path.resolve().is_relative_to(
            Path(tensor.base_dir).resolve()
        )
        missing = not path.is_file()
    except (OSError, ValueError) as error:  # no file can be called that, or a folder may not be entered
        problem = f"the data of `{tensor.name}` cannot be read: {getattr(error, 'strerror', error)}"
        raise ModelError(problem, where=where, hint="export the model again") from error
    if outside:
        raise ModelError(
            f"the data of `{tensor.name}` is outside of the model's folder, or its location may lead there",
            where=where,
            hint="copy the model and its data into one folder, as files and not as links: cp -L; "
            "`location` must be a name below that folder without `..`",
        )
    if missing:
        raise ModelError(
            f"the data of `{tensor.name}` should be in `{path.name}`, which is missing",
            where=where,
            hint=f"put `{path.name}` beside the model, as the exporter wrote it",
        )
    end = (tensor.offset or 0) + (tensor.nbytes if tensor.length is None else tensor.length)
    if (tensor.length is not None and tensor.length < tensor.nbytes) or path.stat().st_size < end:
        raise ModelError(
            f"`{path.name}` is too short for `{tensor.name}`: truncated?",
            where=where,
            hint="copy the data file again, or export the model again",
        )


def _may_leave(location: str) -> bool:
    """Whether a location names another folder on some system: bundles are read on others than models are."""
    windows = PureWindowsPath(location)  # takes both separators
    return bool(windows.anchor) or ".." in windows.parts
