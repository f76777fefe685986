"""Quantizers of float32 weights: their codes change at two places, which are found once.

Most nodes of a quantizer never fall where what they read rises: rounding is as monotonic as the exact
arithmetic. So do several in a row, and between two numbers with one code there is no other. Comparing every
weight with two numbers takes a quarter of the time of the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc.passes.table import NO_CODE

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.formats import Int8
    from bitcc.passes.elementwise import Elementwise

    Array = NDArray[Any]
    Floats = NDArray[np.float32]

_RISING = frozenset({"Cast", "Clip", "Identity", "Round", "Sign"})  # as their first input does
_LARGEST = 0x7F7F  # the upper half of the largest finite number


@dataclass(frozen=True)
class Steps:
    """Ternary codes as a function of float32 numbers.

    Attributes:
        lowest: From here on numbers are known to have a code.
        zero: Smaller ones have the code -1.
        one: From here on the code is 1, and between ``zero`` and this it is 0.
        highest: Larger ones are not known to have a code.
    """

    lowest: np.float32
    zero: np.float32
    one: np.float32
    highest: np.float32

    def read(self, numbers: Floats, out: Int8) -> bool:
        """Fill ``out``, int8 of the same shape, with codes; False if a number is not known to have one."""
        np.greater_equal(numbers, self.one, out=out.view(np.bool_))
        np.subtract(out, (numbers < self.zero).view(np.int8), out=out)
        return bool(numbers.min() >= self.lowest and numbers.max() <= self.highest)  # NaN is in no order


def steps_of(content: Elementwise, codes_of: Callable[[Array], Int8]) -> tuple[Floats, Steps] | None:
    """What the codes of a matrix are a function of, and which; None if they are no such function.

    Args:
        content: The values.
        codes_of: The codes of values, ``NO_CODE`` for those that have none.
    """
    varying = [(value, leaf) for value, leaf in content.leaves.items() if leaf.size > 1]
    if not content.is_looked_up or len(varying) != 1:
        return None
    value, numbers = varying[0]
    if numbers.dtype != np.float32 or numbers.shape != content.shape or not _rises(content, value):
        return None
    scalars = {v: leaf.reshape(()) for v, leaf in content.leaves.items() if v is not value}

    def codes_at(places: NDArray[np.int64]) -> Int8:
        return codes_of(content.evaluate({**scalars, value: _numbers(places)}))

    steps = _steps(codes_at)
    return None if steps is None else (numbers, steps)


def _rises(content: Elementwise, value: ir.Value) -> bool:
    """Whether no result of a node falls where the value rises, or is NaN where that is none."""
    rising = {value}
    for node in content.nodes:
        first, *others = node.inputs
        if first not in rising and node.op_type in {"Add", "Mul"}:
            first, others = others[0], [first]
        constants = [content.leaves.get(v) for v in others if v is not None]
        numbers = [float(a.reshape(())) for a in constants if a is not None and a.size == 1]
        if first not in rising or len(numbers) != len(constants) or not np.isfinite(numbers).all():
            return False
        is_scaled = node.op_type in {"Mul", "Div"} and min(numbers) > 0
        if not (is_scaled or node.op_type in {*_RISING, "Add", "Sub"}):
            return False
        rising.add(node.outputs[0])
    return True


def _steps(codes_at: Callable[[NDArray[np.int64]], Int8]) -> Steps | None:
    """From places far apart, and all places between two of those where the code changes."""
    places = np.arange(-_LARGEST, _LARGEST + 1) << 16
    codes = codes_at(places)
    known = np.flatnonzero(codes != NO_CODE)
    if not known.size:
        return None
    places, codes = (a[known[0] : known[-1] + 1] for a in (places, codes))
    if NO_CODE in codes or codes[0] != -1 or codes[-1] != 1:
        return None
    changes = []
    for code in (0, 1):
        behind = int(np.argmax(codes >= code))
        between = np.arange(places[behind - 1], places[behind] + 1)
        found = codes_at(between)
        if NO_CODE in found:
            return None
        changes.append(between[np.argmax(found >= code)])
    return Steps(*_numbers(np.array([places[0], *changes, places[-1]])))


def _numbers(places: NDArray[np.int64]) -> Floats:
    """Finite float32 numbers in their order; 0 is in the middle."""
    magnitudes = np.abs(places).astype(np.uint32).view(np.float32)
    return np.copysign(magnitudes, places.astype(np.float32))
