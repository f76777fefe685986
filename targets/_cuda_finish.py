"""From int32 accumulators to Y, at the end of the CUDA matmuls: what `finish` is on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcc.targets._cuda_tir import QUAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.targets._cuda_element import Element
    from bitcc.targets._cuda_tir import Cuda


@dataclass(frozen=True)
class Finish:
    """Writes one element of Y: each operation is rounded by itself, as in `bitcc.ops`.

    Attributes:
        element: The type of Y.
    """

    element: Element

    def __call__(self, t: Cuda, a: Any, *, token: Any, row: Any, sum_of_codes: Any) -> None:
        """Write y[token, row], if there is such an element.

        Args:
            t: Writes it.
            a: The arguments of the kernel.
            token: Of Y.
            row: Of the padded weights.
            sum_of_codes: sum_k q[k] * (w[k] + 1).
        """
        # loads are outside of the condition, so that a thread with many elements has each of them once
        known_token, known_row = t.let(t.minimum(token, a.tokens - 1)), t.let(t.minimum(row, a.n - 1))
        of_row = _Row(t, a, a.scale.load(known_row), a.bias.load(known_row))
        y = of_row(a.inverse.load(known_token), sum_of_codes - a.sums.load(known_token))
        with t.when((token < a.tokens) & (row < a.n)):
            self.element.store(t, a.y, _offset(t, a, token, row), y)

    def quads(self, t: Cuda, a: Any, *, row: Any, tokens: Sequence[tuple[Any, Sequence[Any]]]) -> None:
        """Write y[token, row .. row + 3] for many tokens: one store each where Y is aligned to that.

        Args:
            t: Writes it.
            a: The arguments of the kernel.
            row: The first of the four; a multiple of four.
            tokens: Tokens of Y, and the sums of the four rows, as `sum_of_codes` above.
        """
        known = [t.let(t.minimum(row + i, a.n - 1)) for i in range(QUAD)]
        rows = [_Row(t, a, a.scale.load(at), a.bias.load(at)) for at in known]
        aligned = t.let(a.n % QUAD == 0)
        for token, sums in tokens:
            at = t.let(t.minimum(token, a.tokens - 1))
            inverse, codes = t.let(a.inverse.load(at)), t.let(a.sums.load(at))
            values = [of_row(inverse, acc - codes) for of_row, acc in zip(rows, sums, strict=True)]
            offset = t.let(_offset(t, a, token, row))
            with t.when((token < a.tokens) & (row < a.n) & aligned):
                self.element.store_quad(t, a.y, offset, values)
            for i, value in enumerate(values):
                with t.when((token < a.tokens) & (row + i < a.n) & t.no(aligned)):
                    self.element.store(t, a.y, offset + i, value)


class _Row:
    """From accumulators to elements of Y, of one row of the weights."""

    def __init__(self, t: Cuda, a: Any, scale: Any, bias: Any) -> None:
        self._t, self._scale = t, t.let(scale)
        bias, zero = t.let(bias), t.floats(0, 1)
        self._before = t.let(t.select(a.bias_first != 0, bias, zero))
        self._after = t.let(t.select(a.bias_first != 0, zero, bias))

    def __call__(self, inverse: Any, acc: Any) -> Any:
        t = self._t
        return t.let((t.cast("float32", acc) + self._before) * t.let(inverse * self._scale) + self._after)


def _offset(t: Cuda, a: Any, token: Any, row: Any) -> Any:
    """Of an element of Y."""
    return t.long(token) * t.long(a.n) + t.long(row)
