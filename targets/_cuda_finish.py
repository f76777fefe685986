"""From int32 accumulators to Y, at the end of the CUDA matmuls: what `finish` is on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        bias, zero = t.let(a.bias.load(known_row)), t.floats(0, 1)
        before = t.let(t.select(a.bias_first != 0, bias, zero))
        after = t.let(t.select(a.bias_first != 0, zero, bias))
        factor = t.let(a.inverse.load(known_token) * a.scale.load(known_row))
        acc = t.cast("float32", sum_of_codes - a.sums.load(known_token))
        y = t.let((acc + before) * factor + after)
        with t.when((token < a.tokens) & (row < a.n)):
            self.element.store(t, a.y, t.long(token) * t.long(a.n) + t.long(row), y)
