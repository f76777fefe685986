"""Inline the functions that layers are made of, and no others: a runtime may have kernels for those.

Which ones these are shows where everything is inlined: so that is done first, on a copy without its own
tensors, whose nodes say which functions they come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from bitcc import ops
from bitcc.facts import LayerFacts
from bitcc.passes.calls import check_calls
from bitcc.passes.constants import Constants
from bitcc.passes.detect import candidates, detect
from bitcc.passes.inferred_shapes import inferred_shapes
from bitcc.passes.rms_norm import match_rms_norm
from bitcc.passes.unfuse import unfused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bitcc.passes.layer import Layer

FACTS_INSIDE = "bitcc.layers_inside"
"""Key of ``model.meta`` for the facts of products that are inside of functions which are left alone."""

_FROM = "bitcc.from."
_DOMAINS_WITH_KERNELS = frozenset({ops.DOMAIN, "com.microsoft", "ai.onnx.ml"})


class InlineLayersPass(ir.passes.InPlacePass):
    """Inline every function that a layer which can be packed is made of, the norm in front of it included."""

    def __init__(self, min_weights: int | None) -> None:
        """Set what a layer is.

        Args:
            min_weights: Layers with fewer weights stay as they are; None leaves those that are faster so.
        """
        super().__init__()
        self._min_weights = min_weights

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the model; ``model.meta[FACTS_INSIDE]`` tells of products that are out of sight then.

        Raises:
            ModelError: its functions would become too many nodes, or call each other in a circle.
        """
        functions = [function for function in model.functions.values() if _may_be_inlined(function)]
        if not functions:
            return ir.passes.PassResult(model, modified=False)
        check_calls(model, functions)
        needed, inside = self._examine(_inlined_copy(model))
        model.meta[FACTS_INSIDE] = inside
        return InlinePass(lambda function: _label(function) in needed)(model)

    def _examine(self, copy: ir.Model) -> tuple[set[str], tuple[LayerFacts, ...]]:
        """(labels of the functions to inline, facts of the products in others)."""
        needed: set[str] = set()
        left: list[tuple[ir.Node, LayerFacts]] = []
        with unfused(copy), inferred_shapes(copy):
            constants = Constants(copy)
            for node in candidates(copy, constants):
                found = detect(node, constants, self._min_weights)
                if isinstance(found, LayerFacts):
                    left.append((node, found))
                else:
                    needed.update(label for part in _nodes(found, constants) for label in _labels(part))
        return needed, tuple(fact for node, fact in left if set(_labels(node)) - needed)


def _inlined_copy(model: ir.Model) -> ir.Model:
    """With everything inlined that may be; nodes have the labels of the functions that they come from."""
    copy = model.clone()
    for function in copy.functions.values():
        for node in function.all_nodes():
            node.metadata_props[_label(function)] = ""
    InlinePass(_may_be_inlined)(copy)
    return copy


def _may_be_inlined(function: ir.Function) -> bool:
    return function.domain not in _DOMAINS_WITH_KERNELS


def _label(function: ir.Function) -> str:
    return _FROM + "::".join(function.identifier())


def _labels(node: ir.Node) -> Iterable[str]:
    return (key for key in node.metadata_props if key.startswith(_FROM))


def _nodes(layer: Layer, constants: Constants) -> Iterator[ir.Node]:
    """All nodes between the input of a layer, or of the norm in front of it, and its output."""
    norm = match_rms_norm(layer.x, layer.op.K, constants)
    seen, stack = {layer.x if norm is None else norm.x}, [layer.y]
    while stack:
        value = stack.pop()
        node = value.producer()
        if value in seen or node is None:
            continue
        seen.add(value)
        yield node
        stack.extend(v for v in node.inputs if v is not None)
