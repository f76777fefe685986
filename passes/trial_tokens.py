"""The tokens that a proof runs, and the shapes that the nodes of a layer read of tensors in front of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcc import ops
from bitcc.passes.between import back_from_y
from bitcc.passes.layout import inverse, transposed
from bitcc.passes.normal_form import producer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants
    from bitcc.passes.layer import Layer

    Array = NDArray[Any]

_KINDS = 8
_MOST_TOKENS = 4096
_FEW_TOKENS = 64
_FREE = (7, 5, 11)  # sizes that no Reshape is likely to have


def tokens(layer: Layer, k: int, *, as_declared: bool = False) -> Iterator[Array]:
    """Inputs [..., k] of the layer's rank: ordinary tokens, heavy tails, tiny, huge, zero, and exact halves.

    Where tokens share a scale, each input is of one kind: a huge token would leave the others no codes.

    Args:
        layer: What reads them.
        k: Columns.
        as_declared: Whether there are as many tokens as the model declares, if that is not too many.
    """
    shape = (*_leading(layer, as_declared=as_declared), k)
    rng = np.random.default_rng(layer.op.N * 65537 + k)
    rows = max(int(np.prod(shape[:-1])), 1)
    count = -(-_KINDS // rows) * rows
    tokens = rng.standard_normal((count, k))
    tokens[1] = rng.standard_t(3, k)
    tokens[2, rng.integers(k)] = 60
    tokens[3] *= 1e3
    tokens[4] *= 1e-7
    tokens[5] = 0
    tokens[6] = rng.integers(-127, 127, k) + 0.5
    tokens[6, 0] = 127
    tokens = tokens.astype(np.float32)
    if getattr(layer.op, "act_scope", None) is ops.ActScope.TENSOR:
        for kind in tokens[:_KINDS]:
            yield np.stack([np.roll(kind, i) / np.float32(1 + i / rows) for i in range(rows)]).reshape(shape)
        return
    for start in range(0, count - rows + 1, rows):
        yield tokens[start : start + rows].reshape(shape)


def not_finite(layer: Layer, k: int, *, as_declared: bool = False) -> Iterator[Array]:
    """Inputs of which every token has a NaN, or an infinity."""
    ordinary = next(tokens(layer, k, as_declared=as_declared))
    for number in (np.nan, np.inf):
        x = ordinary.copy()
        x[..., 0] = number
        yield x


def with_copies(layer: Layer, x: Array) -> dict[ir.Value, Array]:
    """An input of a layer, in the layout of the model, and what its copies are then."""
    copies = {copy.value: transposed(x, inverse(copy.layout)) for copy in layer.copies}
    return {**copies, layer.x: x}


def _leading(layer: Layer, *, as_declared: bool) -> tuple[int, ...]:
    """The dimensions before the last: few tokens, whatever the model declares, computed in the same way.

    A Reshape in front of the product may only take the declared shape; there free axes are of unlike sizes,
    so that none is taken for another. Constants of the graph may have the declared shape, too.
    """
    declared = _declared(layer)
    sizes = [d for d in declared if isinstance(d, int)]
    fixed = 0 < len(sizes) == len(declared) and not layer.x_layout
    if as_declared or layer.reshapes or (fixed and math.prod(sizes[:-1]) <= _FEW_TOKENS):
        rows = tuple(_filled_in(declared[:-1]))
        if 0 < math.prod(rows) <= _MOST_TOKENS:
            return rows
    known = 2 if layer.x.shape is None else max(layer.x.shape.rank(), 1)
    rank = len(layer.x_layout or (() if layer.product.y_shape else layer.y_layout)) or known
    return {1: (), 2: (_KINDS,)}.get(rank, (*(1,) * (rank - 3), _KINDS // 2, _KINDS // 2))


def _filled_in(shape: Sequence[int | ir.SymbolicDim]) -> Iterator[int]:
    """With sizes for the axes that are free: one size for one name."""
    free, named = iter(_FREE), dict[str, int]()
    for d in shape:
        if isinstance(d, int):
            yield d
        elif d.value in named:
            yield named[d.value]
        else:
            size = next(free, 1)
            if d.value is not None:
                named[d.value] = size
            yield size


def _declared(layer: Layer) -> tuple[int | ir.SymbolicDim, ...]:
    """The shape of the input as the op reads it, nothing where the file says none."""
    shape = () if layer.x.shape is None else tuple(layer.x.shape)
    return tuple(shape[i] for i in layer.x_layout) if layer.x_layout and shape else shape


def shapes_in_front(layer: Layer, constants: Constants) -> dict[ir.Value, Array]:
    """The shapes that a layer's nodes read of other tensors than ``x``, if its tokens are ``as_declared``.

    Axes of one name are of one size, in whatever tensor they are. Where a name is not that of an axis of
    ``x``, nothing is known.
    """
    sizes = zip(_declared(layer), _leading(layer, as_declared=True), strict=False)
    known = {d.value: size for d, size in sizes if not isinstance(d, int) and d.value}
    found: dict[ir.Value, Array] = {}
    for node in back_from_y(layer, constants, found):
        shape = _shape_read(node, layer.x)
        dims = [d if isinstance(d, int) else known.get(d.value or "") for d in shape or ()]
        if shape is not None and None not in dims:
            found[node.outputs[0]] = np.array(dims, np.int64)
    return found


def _shape_read(node: ir.Node, x: ir.Value) -> tuple[int | ir.SymbolicDim, ...] | None:
    """The axes that a Shape gives of another tensor than ``x``; None for any other node."""
    if producer(node.outputs[0], "Shape") is None or (of := node.inputs[0]) in {None, x} or of.shape is None:
        return None
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", of.shape.rank())
    return tuple(of.shape)[start:end]
