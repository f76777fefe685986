"""Read an Einsum equation that is a matrix product with a weight, whose outputs may be several axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bitcc.passes._refused import Refused

if TYPE_CHECKING:
    from bitcc.passes.layout import Layout

RANKS = "export it with the shapes of its inputs, or run python -m onnxruntime.tools.symbolic_shape_infer"
_ELLIPSIS = "..."
_FIX = "export it as a MatMul with a weight of two axes, and a Transpose or Reshape beside it"


class Contraction(NamedTuple):
    """What an equation does with a weight.

    Attributes:
        transposed: Whether the weight is [N, K] rather than [K, N].
        x: What brings the input to [..., K].
        y: What brings [..., N] to the output, where N may be several axes.
        outputs: How many, in the order of the weight.
    """

    transposed: bool
    x: Layout
    y: Layout
    outputs: int = 1


def read_equation(equation: str, weight_index: int, rank: int | None) -> Contraction:
    """An equation such as ``bsk,nk->bsn``, ``...k,kn->...n``, or ``bsk,khd->bhsd`` of an attention's heads.

    An ellipsis in the term of the weight is for axes of one element, or for copies: the caller knows that.

    Args:
        equation: Of the node.
        weight_index: Which operand is the weight.
        rank: Of the other operand, None if it is not known.

    Raises:
        Refused: it is something else than one matrix product of every token.
    """
    if rank is None:
        raise Refused(f"the rank of the input of its equation `{equation}` is not known", fix=RANKS)
    operands, arrow, result = equation.replace(" ", "").partition("->")
    terms = operands.split(",")
    if len(terms) != 2:
        raise Refused(f"its equation `{equation}` is no product of two operands", fix=_FIX)
    result = result if arrow else _implicit_result(terms)
    hidden = rank - len(terms[1 - weight_index].replace(_ELLIPSIS, ""))
    x = _axes(terms[1 - weight_index], hidden)
    y = _axes(result, hidden)
    of_batch = _ELLIPSIS in terms[1 - weight_index]
    weight = list(terms[weight_index].removeprefix(_ELLIPSIS * of_batch))
    contracted = set(weight) & set(x) - set(y)
    kept = [axis for axis in weight if axis in set(y) - set(x)]
    tokens = [axis for axis in x if axis not in contracted]
    plain = len(weight) == len(set(weight)) == len(kept) + 1 >= 2 and len(contracted) == 1
    unique = len(set(x)) == len(x) and len(set(y)) == len(y)
    if not plain or not unique or set(tokens) != set(y) - set(kept) or len(x) != rank:
        raise Refused(f"its equation `{equation}` is not a matrix product over one axis", fix=_FIX)
    (k,) = contracted
    canonical = [*tokens, *kept]
    x_layout = tuple(x.index(axis) for axis in (*tokens, k))
    y_layout = tuple(canonical.index(axis) for axis in y)
    if len(kept) == 1:
        return Contraction(weight[-1] == k, x_layout, y_layout)
    if x != [*tokens, k]:
        raise Refused(f"its equation `{equation}` sums over an axis in front of its tokens", fix=_FIX)
    if k not in {weight[0], weight[-1]}:
        raise Refused(f"its equation `{equation}` sums over a middle axis of its weight", fix=_FIX)
    return Contraction(weight[-1] == k, (), () if y == canonical else y_layout, len(kept))


def has_batch(equation: str) -> bool:
    """Whether both operands begin with an ellipsis, so that the weight is one of a batch."""
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    return all(term.startswith(_ELLIPSIS) for term in terms)


def _implicit_result(terms: list[str]) -> str:
    """The axes that occur once, in the order of the alphabet, behind those of an ellipsis."""
    letters = "".join(terms).replace(_ELLIPSIS, "")
    once = sorted(letter for letter in letters if letters.count(letter) == 1)
    return _ELLIPSIS * any(_ELLIPSIS in term for term in terms) + "".join(once)


def _axes(term: str, hidden: int) -> list[str]:
    """One name for each axis, also for the ``hidden`` ones of an ellipsis."""
    before, ellipsis, after = term.partition(_ELLIPSIS)
    return [*before, *(f"{_ELLIPSIS}{i}" for i in range(hidden) if ellipsis), *after]
