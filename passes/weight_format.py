"""In which format the weights of a model are packed, where that is left to bitcc."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from bitcc import formats
from bitcc.facts import FormatChoice
from bitcc.passes.weight import weight_index

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

    from bitcc.formats import WeightFormat
    from bitcc.passes.constants import Constants

BEYOND_CORES = 1 << 25
"""Weights of a model, 8 MB of `t2`, that the cores' own caches do not hold from one token to the next: single
tokens are as fast as bytes arrive, and `t5` is the faster one."""


def chosen_format(choice: FormatChoice, candidates: Iterable[ir.Node], constants: Constants) -> WeightFormat:
    """The format of all layers with int8 activations.

    Args:
        choice: What the user wants; `AUTO` goes by the number of weights, as docs/formats.md says.
        candidates: The nodes that multiply by a constant matrix, packed or not: all pass through the caches.
        constants: Of the model.
    """
    if choice is FormatChoice.AUTO:
        count = sum(_weights(node, constants) for node in candidates)
        choice = FormatChoice.T5 if count >= BEYOND_CORES else FormatChoice.T2
    return formats.FORMATS[choice.value]


def _weights(node: ir.Node, constants: Constants) -> int:
    """How many weights a candidate has, 0 if that cannot be told without reading them."""
    if node.op_type == "MatMulNBits":
        return node.attributes.get_int("N", 0) * node.attributes.get_int("K", 0)
    index = weight_index(node, constants)
    weight = None if index is None else node.inputs[index]
    shape = None if weight is None else weight.shape
    return 0 if shape is None or not shape.is_static() else prod(shape.numpy())
