"""Read an Einsum equation that is a matrix product with a weight of two axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bitcc.passes._refused import Refused

if TYPE_CHECKING:
    from bitcc.passes.layout import Layout

_ELLIPSIS = "..."


class Contraction(NamedTuple):
    """What an equation does with a weight.

    Attributes:
        transposed: Whether the weight is [N, K] rather than [K, N].
        x: What brings the input to [..., K].
        y: What brings [..., N] to the output.
    """

    transposed: bool
    x: Layout
    y: Layout


def read_equation(equation: str, weight_index: int, rank: int | None) -> Contraction:
    """An equation such as ``bsk,nk->bsn`` or ``...k,kn->...n``.

    Args:
        equation: Of the node.
        weight_index: Which operand is the weight.
        rank: Of the other operand, None if it is not known.

    Raises:
        Refused: it is something else than one matrix product of every token.
    """
    if rank is None:
        raise Refused(f"the rank of the input of its equation `{equation}` is not known")
    operands, arrow, result = equation.replace(" ", "").partition("->")
    terms = operands.split(",")
    if not arrow or len(terms) != 2:
        raise Refused(f"its equation `{equation}` is no product of two operands with an explicit result")
    x = _axes(terms[1 - weight_index], rank)
    y = _axes(result, rank)
    weight = list(terms[weight_index])
    contracted, kept = set(weight) & set(x) - set(y), set(weight) & set(y) - set(x)
    tokens = [axis for axis in x if axis not in contracted]
    plain = len(weight) == len(set(weight)) == 2 and len(contracted) == len(kept) == 1
    unique = len(set(x)) == len(x) and len(set(y)) == len(y)
    if not plain or not unique or set(tokens) != set(y) - kept or len(x) != rank:
        raise Refused(f"its equation `{equation}` is not a matrix product over one axis")
    (n,), (k,) = kept, contracted
    canonical = [*tokens, n]
    x_layout = tuple(x.index(axis) for axis in (*tokens, k))
    return Contraction(weight == [n, k], x_layout, tuple(canonical.index(axis) for axis in y))


def _axes(term: str, rank: int) -> list[str]:
    """One name for each axis."""
    before, ellipsis, after = term.partition(_ELLIPSIS)
    hidden = rank - len(before) - len(after) if ellipsis else 0
    return [*before, *(f"{_ELLIPSIS}{i}" for i in range(hidden)), *after]
