"""What is known of the elements of a token while they are moved, and compared with each other.

A tensor ``x`` [..., K] becomes others, in which each token has some elements too. Of these it is known which
are at least or at most ``x[j]`` or ``-x[j]``, for each column j.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

NONE = -1
"""In place of an element where none is known."""


class Elements(NamedTuple):
    """The elements of one token, in a tensor in which every token has as many.

    Attributes:
        shape: Of the tensor, with 1 for the axes of tokens.
        tokens: Whether each axis is one of tokens.
        order: Which axis of tokens of ``x`` each of these is.
        above: int [2 K]: an element that is at least x[0], x[1], ..., -x[0], -x[1], ...
        below: int [2 K]: an element that is at most these.
        low: float [elements]: a constant that each is at least.
        most: float [elements]: the largest constant that each may be; -infinity for none.
        is_reshaped: Whether the axes of tokens may be others than those of ``x``.
    """

    shape: tuple[int, ...]
    tokens: tuple[bool, ...]
    order: tuple[int, ...]
    above: Array
    below: Array
    low: Array
    most: Array
    is_reshaped: bool = False

    @classmethod
    def of_columns(cls, rank: int, columns: int) -> Elements:
        """Those of ``x``, whose last axis is that of columns."""
        numbers = np.arange(2 * columns)
        numbers[columns:] = NONE
        low = np.full(columns, -np.inf)
        shape, tokens = (*(1,) * (rank - 1), columns), (*(True,) * (rank - 1), False)
        return cls(shape, tokens, tuple(range(rank - 1)), numbers, numbers, low, low)

    @classmethod
    def of_number(cls, rank: int, columns: int, number: float) -> Elements:
        """A tensor [..., 1] of one number."""
        none, numbers = np.full(2 * columns, NONE), np.full(1, number)
        tokens, order = (*(True,) * (rank - 1), False), tuple(range(rank - 1))
        return cls((1,) * rank, tokens, order, none, none, numbers, numbers)

    @property
    def has_constants(self) -> bool:
        """Whether an element may be a constant."""
        return bool((self.most > -np.inf).any())

    @property
    def is_ordered(self) -> bool:
        """Whether the axes of tokens are in the order of those of ``x``."""
        return self.order == tuple(sorted(self.order))

    def is_within(self, axes: Sequence[int]) -> bool:
        """Whether none of these axes is one of tokens."""
        return not any(self.tokens[axis] for axis in axes)

    def without_bounds(self) -> Elements:
        """The same with nothing known about how they compare."""
        none = np.full_like(self.above, NONE)
        return self._replace(above=none, below=none)

    def negative(self) -> Elements:
        """Those of ``-x``; there must be no constants."""
        half = self.above.size // 2
        return self._replace(above=np.roll(self.below, half), below=np.roll(self.above, half))

    def moved(self, move: Callable[[Array], Array], tokens: Sequence[bool]) -> Elements:
        """What a move of elements makes of them, which takes the tensor and leaves its tokens as they are."""
        numbers = move(np.arange(self.low.size).reshape(self.shape))
        picked = numbers.reshape(-1)
        places = np.full(self.low.size + 1, NONE)  # the last one for what is not known
        places[picked[::-1]] = np.arange(picked.size)[::-1]
        above, below = places[self.above], places[self.below]
        low, most = self.low[picked], self.most[picked]
        return Elements(numbers.shape, tuple(tokens), self.order, above, below, low, most, self.is_reshaped)

    def transposed(self, perm: Sequence[int]) -> Elements:
        """With its axes in another order."""
        axes = [axis for axis, is_one in enumerate(self.tokens) if is_one]
        places = dict(zip(axes, self.order, strict=True))
        found = self.moved(lambda array: array.transpose(perm), [self.tokens[axis] for axis in perm])
        return found._replace(order=tuple(places[axis] for axis in perm if axis in places))

    def extreme(self, axes: Sequence[int], *, largest: bool) -> Elements:
        """The largest or the smallest elements along axes, which stay."""
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(self.shape))
        numbers = np.arange(math.prod(shape)).reshape(shape)
        places = np.append(np.broadcast_to(numbers, self.shape).reshape(-1), NONE)
        low, most = self.low.reshape(self.shape), self.most.reshape(self.shape)
        low, most = (low.max if largest else low.min)(tuple(axes)), most.max(tuple(axes))
        found = self._replace(shape=shape, low=low.reshape(-1), most=most.reshape(-1))
        none = np.full_like(self.above, NONE)
        if largest:
            return found._replace(above=places[self.above], below=none)
        return found._replace(above=none, below=places[self.below])


def joined(parts: Sequence[Elements], axis: int) -> Elements:
    """Parts one behind the other along an axis that is none of tokens; all others are alike."""
    first = parts[0]
    starts = np.cumsum([0, *(part.low.size for part in parts)])
    above, below = np.full_like(first.above, NONE), np.full_like(first.below, NONE)
    numbers = []
    for start, part in zip(starts, parts, strict=False):
        above = np.where((above == NONE) & (part.above != NONE), part.above + start, above)
        below = np.where((below == NONE) & (part.below != NONE), part.below + start, below)
        numbers.append(np.arange(start, start + part.low.size).reshape(part.shape))
    low, most = (
        np.concatenate(list(of)) for of in zip(*((part.low, part.most) for part in parts), strict=True)
    )
    is_reshaped = any(part.is_reshaped for part in parts)
    flat = Elements((int(starts[-1]),), (False,), first.order, above, below, low, most, is_reshaped)
    return flat.moved(lambda _: np.concatenate(numbers, axis), first.tokens)
