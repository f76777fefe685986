"""Matrices that are a function of 8 or 16 bits: computed for each pattern of bits, not for each element."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from bitcc.formats import Int8

    Array = NDArray[Any]

Patterns: TypeAlias = "NDArray[np.uint8] | NDArray[np.uint16]"

NO_CODE = 2
"""In a table of codes: the pattern stands for no ternary weight."""

_SIGN = 1 << 15  # of a half
_MOST_RUNS = 8  # of patterns of one code; comparing with more costs more than looking codes up


@dataclass(frozen=True, eq=False)
class Table:
    """A matrix as a function of the bits of another one.

    Attributes:
        values: What each of the 256 or 65536 patterns becomes.
        patterns: Which, uint8 or uint16, in the shape of the matrix.
    """

    values: Array
    patterns: Patterns

    def look_up(self, rows: slice | NDArray[np.int64]) -> Array:
        """Some rows of the matrix."""
        return np.take(self.values, self.patterns[rows], mode="clip")

    def largest(self, rows: slice) -> int:
        """The largest of the patterns in these rows, those of 16 bits without their signs."""
        patterns = self.patterns[rows]
        return int(patterns.max()) if self.values.size < _SIGN else size_of_halves(patterns)

    def up_to(self, largest: int) -> NDArray[np.bool_]:
        """Which patterns are no larger, as ``largest`` means it."""
        return (np.arange(self.values.size) & (_SIGN - 1)) <= largest

    def count(self, blocks: Iterable[slice]) -> NDArray[np.int64]:
        """How often each pattern occurs in these rows."""
        counts = np.zeros(self.values.size, np.int64)
        for rows in blocks:
            counts += np.bincount(self.patterns[rows].reshape(-1), minlength=counts.size)
        return counts


@dataclass(frozen=True, eq=False)
class CodeTable:
    """Ternary codes as a function of bits.

    A code has few ranges of patterns: comparing with their ends is several times faster than a look-up.

    Attributes:
        codes: int8 [256] or [65536], -1, 0, 1 or ``NO_CODE``.
    """

    codes: Int8

    def read(self, patterns: Patterns, out: Int8, largest: int) -> bool:
        """Fill ``out`` with the codes of the patterns; False if one of them has none.

        Args:
            patterns: Some rows of a ``Table``.
            out: int8, of their shape.
            largest: As ``Table.largest`` gives it for these rows.
        """
        if self._step is not None and largest < self._step.end:
            return self._step.read(patterns, out)
        if self._first is not None:
            from_first = out.view(np.uint8)
            np.subtract(patterns, self._first, out=from_first)  # smaller ones wrap around to large numbers
            fits = bool(from_first.max() <= 2)
            np.subtract(out, 1, out=out)
            return fits
        if len(self._runs) > _MOST_RUNS:
            np.take(self.codes, patterns, mode="clip", out=out)
            return bool(out.max() < NO_CODE)
        known = np.zeros(patterns.shape, np.bool_)
        out[...] = 0
        for code, first, last in self._runs:
            inside = _inside(patterns, first, last)
            known |= inside
            if code:
                (np.add if code > 0 else np.subtract)(out, inside.view(np.int8), out=out)
        return bool(known.all())

    @cached_property
    def _first(self) -> int | None:
        """The byte of code -1 if the next ones are those of 0 and 1, and no other has a code: of integers."""
        first = int(np.argmax(self.codes == -1))
        from_first = np.roll(self.codes, -first)
        is_line = from_first[:3].tolist() == [-1, 0, 1] and (from_first[3:] == NO_CODE).all()
        return first if is_line and self.codes.size < _SIGN else None

    @cached_property
    def _step(self) -> _Step | None:
        """How the codes of all but the largest halves are found, if they are those of a quantizer."""
        if self.codes.size < _SIGN:
            return None
        above, below = self.codes[:_SIGN], self.codes[_SIGN:]
        behind_zeros, first = int(np.argmax(above != 0)), int(np.argmax(above == 1))
        end = first + int(np.argmin(above[first:] == 1))
        is_step = 0 < behind_zeros <= first < end and (above[behind_zeros:first] == NO_CODE).all()
        is_odd = np.array_equal(below[:end], np.where(above == 1, -1, above)[:end])
        return _Step(behind_zeros, first, end) if is_step and is_odd else None

    @cached_property
    def _runs(self) -> list[tuple[int, int, int]]:
        """(code, first, last + 1) of the patterns that have one."""
        ends = [0, *(np.flatnonzero(np.diff(self.codes)) + 1).tolist(), self.codes.size]
        runs = [(int(self.codes[first]), first, last) for first, last in pairwise(ends)]
        return [run for run in runs if run[0] != NO_CODE]


class _Step(NamedTuple):
    """Ternary codes of halves as a function of their magnitudes, whose patterns are ordered like them.

    Attributes:
        behind_zeros: Smaller ones have the code 0, and none from here to ``first``.
        first: From here on the code is the sign.
        end: Of what is known.
    """

    behind_zeros: int
    first: int
    end: int

    def read(self, patterns: Patterns, out: Int8) -> bool:
        """As ``CodeTable.read``, of magnitudes before the end."""
        np.greater_equal(patterns.view(np.int16), self.first, out=out.view(np.bool_))
        negative = patterns >= _SIGN + self.first
        np.subtract(out, negative.view(np.int8), out=out)
        if self.behind_zeros == self.first:
            return True
        magnitudes = patterns & (_SIGN - 1)
        magnitudes -= self.behind_zeros  # smaller ones wrap around to large numbers
        return bool(magnitudes.min() >= self.first - self.behind_zeros)


def size_of_halves(patterns: Patterns) -> int:
    """The largest without their signs: halves are ordered like the numbers that they stand for."""
    largest, largest_signed = int(patterns.max()), int(patterns.view(np.int16).max())
    return max(largest & (_SIGN - 1) if largest & _SIGN else 0, largest_signed)


def _inside(patterns: Patterns, first: int, last: int) -> NDArray[np.bool_]:
    """Whether first <= pattern < last."""
    kind = patterns.dtype.type
    if last == first + 1:
        return np.equal(patterns, kind(first))
    from_first = patterns - kind(first) if first else patterns  # smaller ones wrap around to large numbers
    return np.less_equal(from_first, kind(last - first - 1))
