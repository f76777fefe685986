"""Find sums of products whose inputs are the parts of one tensor: what was one matrix, cut along its inputs.

x -> Split -> h1, h2       h1 -> MatMul(W1) -> p1       h2 -> MatMul(W2) -> p2       p1 + p2

And differences of two products of one tensor: what was one matrix, as its positive and its negative part.

x -> MatMul(W1) -> p1      x -> MatMul(W2) -> p2        p1 - p2
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from bitcc.passes.act_codes import last_dim
from bitcc.passes.layout import rank_of
from bitcc.passes.normal_form import operands, producer, same, skip
from bitcc.passes.split import cut

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from bitcc.passes.constants import Constants

_PRODUCTS = ("MatMul", "Gemm")
_SUMS = ("Add", "Sum")
_FACTORS = 3  # behind one product
_SUMMAND = 2  # the input of a Gemm that is added


class Span(NamedTuple):
    """Columns ``start`` to ``stop`` of a tensor."""

    whole: ir.Value
    start: int
    stop: int


class Part(NamedTuple):
    """A product of some columns.

    Attributes:
        node: The product.
        span: What it multiplies.
        scaled: The nodes that multiply or divide it behind that, first to last, and by what.
    """

    node: ir.Node
    span: Span
    scaled: tuple[tuple[ir.Node, ir.Value], ...] = ()


class PartialSum(NamedTuple):
    """A sum of which the products of all columns of one tensor are a part.

    Attributes:
        root: The node that makes the sum.
        sums: It, and those that make what it adds.
        parts: In the order of their columns.
        others: What is added besides.
        is_difference: Whether it is the difference of two products of all columns instead.
    """

    root: ir.Node
    sums: frozenset[ir.Node]
    parts: tuple[Part, ...]
    others: tuple[ir.Value, ...] = ()
    is_difference: bool = False


def differences(nodes: Iterator[ir.Node], constants: Constants) -> Iterator[PartialSum]:
    """All differences of two products of one tensor."""
    for root in nodes:
        if producer(root.outputs[0], "Sub") is None:
            continue
        parts = [part for v in root.inputs if v is not None and (part := _whole_product(v, constants))]
        if len(parts) != 2:
            continue
        first, second = parts
        same_tokens = first.node is not second.node and first.span == second.span
        if same_tokens and _is_alike(first, second, constants):
            yield PartialSum(root, frozenset({root}), (first, second), is_difference=True)


def _whole_product(value: ir.Value, constants: Constants) -> Part | None:
    """A product of all columns of a tensor with a constant matrix, without a bias, that one node reads."""
    node = None if _only_reader(value) is None else producer(value, *_PRODUCTS)
    if node is None or any(v is not None for v in node.inputs[_SUMMAND:]):
        return None
    x, weight = node.inputs[:2]
    columns = None if x is None else last_dim(x)
    if x is None or columns is None or weight not in constants or rank_of(weight) != 2:
        return None
    return Part(node, Span(x, 0, columns))


def partial_sums(nodes: Iterator[ir.Node], constants: Constants) -> Iterator[PartialSum]:
    """All of them, but for those that share the node of a sum with an earlier one."""
    taken: set[ir.Node] = set()
    for node in nodes:
        part = _product(node, constants) if node.op_type in _PRODUCTS else None
        found = None if part is None or part.span.start else _sum_with(part, constants)
        if found is not None and taken.isdisjoint(found.sums):
            taken |= found.sums
            yield found


def _sum_with(part: Part, constants: Constants) -> PartialSum | None:
    """The first sum behind a product that has all others of its tensor."""
    value = part.node.outputs[0]
    while (node := _only_reader(value)) is not None:
        if producer(node.outputs[0], *_SUMS) is not None:
            found = _read_sum(node, part.span.whole, constants)
            if found is not None:
                return found
        elif producer(node.outputs[0], "Mul", "Div") is None:
            break
        value = node.outputs[0]
    return None


def _read_sum(root: ir.Node, whole: ir.Value, constants: Constants) -> PartialSum | None:
    sums: set[ir.Node] = set()
    read = [(value, _scaled_part(value, constants, _FACTORS)) for value in _summands(root, sums)]
    parts = sorted(
        (part for _, part in read if part is not None and part.span.whole is whole),
        key=lambda part: part.span.start,
    )
    others = tuple(value for value, part in read if part is None or part.span.whole is not whole)
    ends = [0, *(part.span.stop for part in parts)]
    covers = ends[:-1] == [part.span.start for part in parts] and ends[-1] == last_dim(whole)
    alike = all(_is_alike(a, b, constants) for a, b in pairwise(parts))
    plain = all(v is None for part in parts for v in part.node.inputs[_SUMMAND:])
    if len(parts) < 2 or not (covers and alike and plain):
        return None
    return PartialSum(root, frozenset(sums), tuple(parts), others)


def _is_alike(first: Part, second: Part, constants: Constants) -> bool:
    """Whether two products are of one kind, and scaled by the same."""
    if first.node.op_type != second.node.op_type or len(first.scaled) != len(second.scaled):
        return False
    get = [[part.node.attributes.get_int(f"trans{side}", 0) for side in "AB"] for part in (first, second)]
    plain = all(part.node.attributes.get_float("alpha", 1.0) == 1 for part in (first, second))
    return (
        plain
        and get[0] == get[1]
        and get[0][0] == 0
        and all(
            a.op_type == b.op_type and same(x, y, constants)
            for (a, x), (b, y) in zip(first.scaled, second.scaled, strict=True)
        )
    )


def _summands(root: ir.Node, sums: set[ir.Node]) -> Iterator[ir.Value]:
    """What a node adds, in the order in which it is added, sums that nothing else reads taken apart.

    All nodes of these go to ``sums``.
    """
    sums.add(root)
    for value in root.inputs:
        inner = producer(value, *_SUMS)
        if inner is not None and value is not None and _only_reader(value) is root:
            yield from _summands(inner, sums)
        elif value is not None:
            yield value


def _scaled_part(value: ir.Value, constants: Constants, depth: int) -> Part | None:
    """A product of some columns that nothing else reads, behind what it is multiplied and divided by."""
    if _only_reader(value) is None:
        return None
    if (node := producer(value, *_PRODUCTS)) is not None:
        return _product(node, constants)
    node = producer(value, "Mul", "Div") if depth else None
    for inner, other in () if node is None else operands(node):
        if node is not None and (part := _scaled_part(inner, constants, depth - 1)) is not None:
            return part._replace(scaled=(*part.scaled, (node, other)))
    return None


def _product(node: ir.Node, constants: Constants) -> Part | None:
    """A product of some columns of a tensor with a constant matrix."""
    if producer(node.outputs[0], *_PRODUCTS) is None or len(node.inputs) < 2:
        return None
    x, weight = node.inputs[:2]
    span = None if x is None or weight not in constants or rank_of(weight) != 2 else _span(x, constants)
    return None if span is None else Part(node, span)


def _span(value: ir.Value, constants: Constants) -> Span | None:
    """Which columns of which tensor a value is; None for anything else, and for all of them."""
    value = skip(value, constants)
    found, node = cut(value, constants), producer(value, "Slice")
    whole = node.inputs[0] if node is not None else None if found is None else found.whole
    columns, size = None if whole is None else last_dim(whole), last_dim(value)
    if whole is None or columns is None:
        return None
    if found is not None and found.axis in {-1, (rank_of(whole) or 0) - 1}:
        return Span(skip(whole, constants), found.start, found.stop)
    start = None if node is None else _slice_start(node, columns, constants)
    if start is None or size is None or size == columns:
        return None
    return Span(skip(whole, constants), start, start + size)


def _slice_start(node: ir.Node, columns: int, constants: Constants) -> int | None:
    """Where a Slice of columns begins."""
    numbers = [None if v is None else constants.scalar(v) for v in node.inputs[1:]]
    axes = {-1, (rank_of(node.inputs[0]) or 0) - 1}
    if len(numbers) < 3 or numbers[2] not in axes or numbers[3:] not in ([], [1.0]) or numbers[0] is None:
        return None
    start = int(numbers[0])
    return max(0, start + columns if start < 0 else start)


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.graph is not value.graph:
        return None
    return uses[0].node
