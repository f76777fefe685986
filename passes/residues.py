"""Find tensors that straight-through estimators add and take off again, other ones than what is quantised.

    y = v + (quantised(x) - v)      where x is v clipped, masked or normalised

Such a ``v`` is in front of the layer, and the layer does not depend on it: no more than by its last places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from bitcc.passes.between import back_from
from bitcc.passes.normal_form import base_of_residue

if TYPE_CHECKING:
    from bitcc.passes.constants import Constants

_MOST_VALUES = 1 << 14  # that are looked at to tell whether one is made of another


def foreign_bases(x: ir.Value, y: ir.Value, constants: Constants) -> tuple[ir.Value, ...]:
    """What residues between ``x`` and ``y`` are of, if that has the shape of ``x`` and is not made of it."""
    found, seen = list[ir.Value](), {x}
    for value, _ in back_from(y, seen, constants):
        if len(seen) > _MOST_VALUES:
            return ()
        base = base_of_residue(value, constants)
        if base is not None and base not in seen and _fits(base, x) and not _is_made_of(base, x):
            found.append(base)
            seen.add(base)
    return tuple(found)


def _fits(base: ir.Value, x: ir.Value) -> bool:
    """Whether two values are certainly of one shape: a larger one would be that of the layer."""
    if base.shape is None or x.shape is None or base.shape.rank() != x.shape.rank():
        return False
    pairs = zip(base.shape, x.shape, strict=True)
    return all(a == b and (isinstance(a, int) or a.value is not None) for a, b in pairs)


def _is_made_of(value: ir.Value, x: ir.Value) -> bool:
    stack, seen = [value], set[ir.Value]()
    while stack and len(seen) < _MOST_VALUES:
        value = stack.pop()
        if value is x:
            return True
        node = value.producer()
        if node is not None and value not in seen:
            seen.add(value)
            stack.extend(v for v in node.inputs if v is not None)
    return bool(stack)
