"""Read products that were cut along their inputs as one: a layer that several devices shared, in one file.

In the file:  x -> Split -> MatMul(W1), MatMul(W2) -> Add -> y
Meanwhile:    x -> MatMul(Concat(W1, W2)) -> y

where that is a layer with int8 activations: its tokens are quantised before they are split, and all parts
have the same weight scale. Every other sum stays as it is, and so does one whose layer is not packed.

So are differences of two products,  x -> MatMul(W1), MatMul(W2) -> Sub -> y,  as  x -> MatMul(W1 - W2) -> y,
where that is a layer, whatever its activations: ternary weights as two masks.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx_ir as ir

from bitcc.ops import BitLinear
from bitcc.passes._refused import Refused
from bitcc.passes.act_codes import last_dim
from bitcc.passes.between import HALVES, nodes_between
from bitcc.passes.constants import Constants
from bitcc.passes.detect import detect
from bitcc.passes.layer import Layer
from bitcc.passes.normal_form import producer
from bitcc.passes.pack import names_of, remove_dead, take_place, unique
from bitcc.passes.parts import PartialSum, differences, partial_sums
from bitcc.passes.prove import TOLERANCE, difference

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

    from bitcc.passes.runner import Declared, Runner

    Array = NDArray[Any]

_TOKENS = 4


class Join(NamedTuple):
    """Products that are read as one.

    Attributes:
        sum: What is in the file.
        node: The product that stands for all of them.
        made: What is there meanwhile, first to last.
    """

    sum: PartialSum
    node: ir.Node
    made: tuple[ir.Node, ...]

    @property
    def hidden(self) -> tuple[ir.Node, ...]:
        """The products in the file."""
        return tuple(part.node for part in self.sum.parts)


@contextmanager
def joined(model: ir.Model, runner: Runner) -> Iterator[list[Join]]:
    """Join what can be; afterwards what is still in the list is what it was."""
    names, joins = names_of(model), list[Join]()
    try:
        joins += [_join(found, names) for found in _sums(model)]
        constants = Constants(model) if joins else None
        for join in list(joins):
            if constants is None or not _is_layer(join, constants) or not _is_same(join, constants, runner):
                _undo(join, names)
                joins.remove(join)
        yield joins
    finally:
        for join in joins:
            _undo(join, names)


def settle(joins: list[Join], packed: Collection[ir.Node]) -> None:
    """Forget what was in the file for the joint products that are packed."""
    for join in [join for join in joins if join.node in packed]:
        remove_dead([join.sum.root])
        joins.remove(join)


def _sums(model: ir.Model) -> list[PartialSum]:
    found: list[PartialSum] = []
    if _has_parts(model):
        found += partial_sums(model.graph.all_nodes(), Constants(model))
    if any(node.op_type == "Sub" and _is_of_products(node) for node in model.graph.all_nodes()):
        found += differences(model.graph.all_nodes(), Constants(model))
    return found


def _is_of_products(node: ir.Node) -> bool:
    return all(producer(value, "Gemm", "MatMul") is not None for value in node.inputs)


def _has_parts(model: ir.Model) -> bool:
    """Whether anything is split at all: most models are done with that."""
    nodes = (node for node in model.graph.all_nodes() if node.op_type in {"SequenceAt", "Slice", "Split"})
    parts = (v for node in nodes for v in node.outputs)
    return any(use.node.op_type in {"Cast", "Gemm", "MatMul"} for value in parts for use in value.uses())


def _join(found: PartialSum, names: set[str]) -> Join:
    """Put the joint product in the place of the sum."""
    root, (first, *_) = found.root, found.parts
    node, made = first.node, list[ir.Node]()

    def add(domain: str, op_type: str, inputs: list[ir.Value], like: ir.Node, name: str) -> ir.Value:
        new = ir.Node(domain, op_type, inputs, like.attributes.values(), name=unique(name, names))
        new.outputs[0].name, new.outputs[0].type = unique(f"{name}_y", names), like.outputs[0].type
        new.outputs[0].shape = like.outputs[0].shape
        made.append(new)
        return new.outputs[0]

    name = "+".join(part.node.name or part.node.outputs[0].name or "" for part in found.parts)
    by_rows = node.attributes.get_int("transB", 0) != 0
    matrices = [v for part in found.parts if (v := part.node.inputs[1]) is not None]
    op_type, attributes = "Concat", [ir.AttrInt64("axis", int(by_rows))]
    if found.is_difference:
        op_type, attributes = "Sub", []
    stack = ir.Node("", op_type, matrices, attributes, name=unique(f"{name}_w", names))
    weight = stack.outputs[0]
    weight.name, weight.type = unique(f"{name}_weight", names), matrices[0].type
    made.append(stack)
    value = add(node.domain, node.op_type, [first.span.whole, weight], node, name)
    joint = made[-1]
    for scaled, other in first.scaled:
        inputs = [other if v is other else value for v in scaled.inputs]
        value = add("", scaled.op_type, inputs, scaled, f"{name}_{scaled.op_type}")
    for other in found.others:
        value = add("", "Add", [value, other], root, f"{name}_Add")
    if root.graph is not None:
        root.graph.insert_before(root, made)
    take_place(root.outputs[0], value, names)
    return Join(found, joint, tuple(made))


def _undo(join: Join, names: set[str]) -> None:
    take_place(join.made[-1].outputs[0], join.sum.root.outputs[0], names)
    for node in reversed(join.made):
        if node.graph is not None:
            node.graph.remove(node, safe=True)


def _is_layer(join: Join, constants: Constants) -> bool:
    found = detect(join.node, constants, 0)
    return isinstance(found, Layer) and (join.sum.is_difference or isinstance(found.op, BitLinear))


def _is_same(join: Join, constants: Constants, runner: Runner) -> bool:
    """Whether onnxruntime computes the same of both; for numbers in place of what else is added."""
    whole = join.sum.parts[0].span.whole
    if whole.shape is None:
        return False
    given = {v: np.array(2 + i, np.float32) for i, v in enumerate(join.sum.others)}
    for part in join.sum.parts:
        given |= {v: np.array(7 + i, np.float32) for i, (_, v) in enumerate(part.scaled)}
    leading = (1,) * (whole.shape.rank() - 2) + (_TOKENS,) * (whole.shape.rank() > 1)
    x = np.random.default_rng(0).standard_normal((*leading, last_dim(whole) or 0))
    given[whole] = x.astype(np.float32)
    try:
        got, want = (
            _run(node.outputs[0], whole, given, constants, runner) for node in (join.made[-1], join.sum.root)
        )
    except Refused:
        return False
    return got.shape == want.shape and difference(got, want) <= TOLERANCE


def _run(
    y: ir.Value, x: ir.Value, given: Mapping[ir.Value, Array], constants: Constants, runner: Runner
) -> Array:
    nodes, leaves = nodes_between(x, y, given, constants, loose=True)
    fed = {v: given[v] if v in given else constants.array(v) for v in leaves} | {x: given[x]}
    fed = {
        v: a.astype(np.float32) if ir.DataType.from_numpy(a.dtype) in HALVES else a for v, a in fed.items()
    }
    types: dict[ir.Value, Declared] = {v: (ir.DataType.from_numpy(a.dtype), a.shape) for v, a in fed.items()}
    result = runner.prepare(nodes, types, y, widened=y.dtype in HALVES)(fed)
    return result.astype(np.float64)
