"""Run a model in half precision as its file says: every result is rounded.

onnxruntime computes most ops of float16 in float32 on a CPU, and leaves out the two Casts between one such
node and the next, with the rounding that they do. PyTorch computes what the file says; codes that are on a
boundary fall to the other side by the difference.

    Mul -> y        becomes        Mul -> Identity -> Identity -> y

Two, because onnxruntime computes in float32 what stands alone between nodes that it computes so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from bitcc import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"


def rounded_session(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session of the model in a file, with every result of float16 rounded.

    Args:
        path: The model.
        options: Of the session, without optimisations.

    Raises:
        Exception: it cannot be read, or onnxruntime does not load it.
    """
    model = onnx.load(path, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model)
    names = {name for graph in _graphs(inferred.graph) for node in graph.node for name in node.output}
    for graph, typed in zip(_graphs(model.graph), _graphs(inferred.graph), strict=True):
        _round(graph, _halves(typed), names)
    options.add_session_config_entry(_EXTERNAL_DATA, paths.for_onnxruntime(path.parent))
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and the bodies of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                if body.node:
                    yield from _graphs(body)


def _halves(graph: onnx.GraphProto) -> set[str]:
    """The values of float16."""
    values = (*graph.value_info, *graph.output)
    return {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT16}


def _round(graph: onnx.GraphProto, halves: set[str], names: set[str]) -> None:
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name not in halves:
                continue
            exact, between = (_unique(f"{name}_{word}", names) for word in ("exact", "rounded"))
            node.output[i] = exact
            nodes += [helper.make_node("Identity", [a], [b]) for a, b in ((exact, between), (between, name))]
    del graph.node[:]
    graph.node.extend(nodes)


def _unique(name: str, names: set[str]) -> str:
    while name in names:
        name += "_"
    names.add(name)
    return name
