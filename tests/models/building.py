"""Make a model of a text: ONNX's own text format, with ``$name`` for what varies."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from models import weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]

_SPELLINGS = Path(__file__).parent / "spellings"
_ELEMENTS = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}


def text(spelling: str, replace: Mapping[str, str] | None = None) -> str:
    """The text of a spelling; every key of ``replace`` must stand in it."""
    content = (_SPELLINGS / f"{spelling}.onnxtxt").read_text(encoding="utf-8")
    for old, new in (replace or {}).items():
        assert old in content, f"`{old}` is not in {spelling}.onnxtxt"
        content = content.replace(old, new)
    return content


def build(
    spelling: str,
    *,
    rows: str = "batch, tokens",
    opset: int = 18,
    weight: Array | None = None,
    half: str = "float16",
    values: Mapping[str, Array] | None = None,
    replace: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """A model of a spelling.

    Args:
        spelling: Name of a file in ``spellings``.
        rows: The leading dimensions of the input.
        opset: Of the standard domain.
        weight: Latent weights; default: gaussian ones.
        half: The type of the models that are in half precision.
        values: Values that replace those of ``weights.arrays``.
        replace: Pieces of the text and what to put in their place.
    """
    known = {**weights.arrays(weight, half), **(values or {})}
    variables = {
        "opset": opset,
        "rows": rows,
        "half": half,
        "element": _ELEMENTS[half],
        "scale": f"{float(known['fc.scale']):.9g}",
    }
    return parse(Template(text(spelling, replace)).substitute(variables), known)


def initializer(name: str, value: Array) -> onnx.TensorProto:
    """An array as an initializer."""
    return numpy_helper.from_array(np.asarray(value), name)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and the bodies of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def parse(content: str, known: Mapping[str, Array]) -> onnx.ModelProto:
    """A checked model of a text; a name that it uses and does not make becomes an initializer."""
    model = onnx.parser.parse_model(content)
    graphs = list(_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    made = {v.name for graph in graphs for v in (*graph.input, *graph.initializer)}
    made |= {o for node in nodes for o in node.output}
    used = dict.fromkeys(i for node in nodes for i in node.input if i and i not in made)
    model.graph.initializer.extend(initializer(name, known[name]) for name in used)
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    onnx.checker.check_model(model)
    return model
