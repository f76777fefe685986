"""Read the arithmetic of scales: products of constants and powers of the activations' largest magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bitcc.passes.finite import numbers_of
from bitcc.passes.normal_form import before_broadcast, inverted, producer, same

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants

    Row = NDArray[np.float64]

_DEPTH = 8


class Factor(NamedTuple):
    """``largest ** power * constant``.

    Attributes:
        power: Of the largest magnitude.
        constant: float64 [1] or [N].
    """

    power: int
    constant: Row

    def times(self, other: Factor, sign: int = 1) -> Factor:
        """The product with another one to the power 1 or -1."""
        with np.errstate(all="ignore"):  # scales that are not finite are refused
            return Factor(self.power + sign * other.power, self.constant * other.constant**sign)


ONE = Factor(0, np.ones(1))


def read_factor(
    value: ir.Value,
    largest: ir.Value | None,
    constants: Constants,
    row: Callable[[ir.Value], Row | None],
    *,
    within: Callable[[ir.Value], ir.Value] = lambda value: value,
    depth: int = _DEPTH,
) -> Factor | None:
    """``value`` in terms of ``largest``, None if it is something else.

    Args:
        value: What to read.
        largest: The bounded largest magnitude, behind what broadcasts it; None where there is none.
        constants: Of the model.
        row: A constant as float64 [1] or [N], None for what is not one.
        within: The scale of tokens behind what gives it another shape; any other value itself.
        depth: How many operations to look into.
    """
    constant = row(value)
    if constant is not None:
        return Factor(0, constant)
    value = within(before_broadcast(value, constants))
    if largest is None or not same(value, largest, constants):
        value = numbers_of(value, constants)

    def read(part: ir.Value) -> Factor | None:
        return read_factor(part, largest, constants, row, within=within, depth=depth - 1)

    if largest is not None and same(value, largest, constants):
        return Factor(1, np.ones(1))
    inner = inverted(value, constants)
    if inner is not None and depth:
        factor = read(inner)
        return None if factor is None else ONE.times(factor, -1)
    node = producer(value, "Mul", "Div") if depth else None
    inputs = () if node is None else node.inputs
    factors = [read(v) for v in inputs if v is not None]
    known = [factor for factor in factors if factor is not None]
    if node is None or len(known) != len(inputs):
        return None
    return known[0].times(known[1], -1 if node.op_type == "Div" else 1)
