"""Check every weight of a rewrite: what the packed bytes say against what the original's nodes compute.

The nodes between the latent weights and the product run in onnxruntime as they are, a few rows at a time or,
where the weights are a function of 8 or 16 bits, once for each pattern of bits. Only reductions of weights
are taken from bitcc's own evaluation, which accumulates in float64: a mean that a runtime sums in another
order can move a weight code by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from bitcc import formats
from bitcc.passes._refused import Refused
from bitcc.passes.elementwise import BLOCK
from bitcc.passes.magnitudes import floats
from bitcc.passes.matrix import PACKED
from bitcc.passes.table import NO_CODE, CodeTable
from bitcc.passes.weight import weight_as_read, weight_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from bitcc.formats import Int8, PackedMatrix
    from bitcc.passes.constants import Constants
    from bitcc.passes.elementwise import Elementwise
    from bitcc.passes.layer import Layer
    from bitcc.passes.matrix import Matrix
    from bitcc.passes.runner import Runner
    from bitcc.passes.table import Table

    Array = NDArray[Any]
    Evaluate = Callable[[Mapping[ir.Value, Array]], Array]

_MANY_NODES = 1 << 16  # elements that these compute together: onnxruntime's temporaries take more of a cache
_STRAY = 5e-6  # of the scale: what each weight may be away from its level


def weight_error(layer: Layer, packed: formats.Bytes, constants: Constants, runner: Runner) -> float:
    """How far the packed weights are from those that the product reads.

    The largest |W - W'| relative to the scale; where that is over 5e-6, the largest norm of a row of W - W'
    relative to that of W.

    Args:
        layer: What was found.
        packed: Its weights in the format of its op.
        constants: Of the model.
        runner: Of the model.

    Raises:
        Refused: the packed weights have another shape.
    """
    matrix = weight_as_read(layer.node, constants)
    codes = _codes(layer, packed, matrix)
    with np.errstate(all="ignore"):  # a table has infinities and NaN, whether they are used or not
        return _error(matrix, codes, layer, runner)


def check_nearest(layer: Layer, packed: formats.Bytes, constants: Constants) -> None:
    """Check that the packed weights are the levels nearest to what the original computes before it rounds.

    Raises:
        Refused: they are not, or have another shape.
    """
    matrix = weight_matrix(layer.node, constants)
    codes = _codes(layer, packed, matrix)
    with np.errstate(all="ignore"):
        _check_nearest(matrix, codes, layer)


def _codes(layer: Layer, packed: formats.Bytes, matrix: Matrix) -> PackedMatrix:
    if matrix.shape != (layer.op.N, layer.op.K):
        raise Refused("packed, its weights have another shape")
    layout = formats.get(layer.op.weight_format, layer.op.layout_version)
    return formats.PackedMatrix(layout, matrix.shape, packed)


def _error(matrix: Matrix, codes: PackedMatrix, layer: Layer, runner: Runner) -> float:
    evaluate = _in_onnxruntime(matrix.content, runner) or matrix.content.evaluate
    table = matrix.content.table
    error = None
    if table is not None and layer.ternary.scale.size == 1:
        error = _table_error(matrix, table, codes, layer.ternary.scale.item(), evaluate)
    if error is None:
        error = _largest_stray(matrix, codes, layer, evaluate)
    return _row_error(matrix, codes, layer, evaluate) if error is None else error


def _in_onnxruntime(content: Elementwise, runner: Runner) -> Evaluate | None:
    """The evaluation of the nodes by onnxruntime; None where it does not take them or their types."""
    if any(leaf.dtype.kind == "V" for leaf in content.leaves.values()):
        return None  # such as bfloat16, which numpy does not know
    types = {v: (ir.DataType.from_numpy(leaf.dtype), None) for v, leaf in content.leaves.items()}
    try:
        return runner.prepare(content.nodes, types, content.value, in_blocks=True) if content.nodes else None
    except Refused:
        return None


def _check_nearest(matrix: Matrix, codes: PackedMatrix, layer: Layer) -> None:
    scale = layer.ternary.scale
    table = matrix.content.table
    if table is not None and scale.size == 1:
        values = floats(table.values)
        known = np.full(values.shape, NO_CODE, np.int8)
        for code in (-1, 0, 1):
            known[np.abs(values - code * scale.item()) < scale.item() / 2] = code
        good = _largest_coded(matrix, table, known, codes) is not None
    else:
        good = all(
            bool((np.abs(_units(layer, floats(matrix.tile(*at)), at) - codes.read(*at)) < 0.5).all())
            for at in matrix.tiles(codes.fmt)
        )
    if not good:
        raise Refused("packed, its weights are not those of the original")


def _largest_coded(matrix: Matrix, table: Table, known: Int8, codes: PackedMatrix) -> int | None:
    """The largest pattern; None unless the codes [N, K] are those that ``known`` says of each."""
    expected, largest = CodeTable(known), 0
    for rows in matrix.blocks(codes.fmt, most=PACKED):
        patterns, largest_here = table.patterns[rows], table.largest(rows)
        found = np.empty(patterns.shape, np.int8)
        if not expected.read(patterns, found, largest_here):
            return None
        largest = max(largest, largest_here)
        if not codes.holds(*matrix.place(rows), matrix.as_content(found)):
            return None
    return largest


def _units(layer: Layer, values: Array, at: tuple[slice, slice]) -> Array:
    """A part of the matrix in units of the scale."""
    units: Array = values * (1 / _scale(layer, at)).astype(values.dtype)
    return units


def _scale(layer: Layer, at: tuple[slice, slice]) -> NDArray[np.float32]:
    """Of a part of the matrix, in a shape that broadcasts to it."""
    scale = layer.ternary.scale
    if scale.shape[0] > 1:
        scale = scale[at[0]]
    if scale.shape[1] > 1:
        scale = scale[:, np.arange(layer.op.K)[at[1]] // layer.ternary.group_size]
    return scale


def _table_error(
    matrix: Matrix, table: Table, codes: PackedMatrix, scale: float, evaluate: Evaluate
) -> float | None:
    """The largest |W - W'| / scale; None if one is more than ``_STRAY``."""
    values = floats(evaluate(matrix.content.patterns())) / np.float32(scale)
    nearest = np.rint(values)
    away = np.abs(values - nearest)
    near = (away <= _STRAY) & (np.abs(nearest) <= 1)
    known = np.where(near, nearest, NO_CODE).astype(np.int8)
    largest = _largest_coded(matrix, table, known, codes)
    if largest is None:
        return None
    return float(away[near & table.up_to(largest)].max())


def _largest_stray(matrix: Matrix, codes: PackedMatrix, layer: Layer, evaluate: Evaluate) -> float | None:
    """The same, of each weight by itself."""
    worst = 0.0
    for at, values, packed in _parts(matrix, codes, evaluate):
        if worst == 0 and _are_levels(values, _scale(layer, at), packed):
            continue
        units = _units(layer, values, at)
        units -= packed
        worst = max(worst, float(units.max()), -float(units.min()))
        if not worst <= _STRAY:  # written so that NaN fails
            return None
    return worst


def _row_error(matrix: Matrix, codes: PackedMatrix, layer: Layer, evaluate: Evaluate) -> float:
    """The largest |W - W'| / |W| of a row."""
    away, size = np.zeros(matrix.shape[0]), np.zeros(matrix.shape[0])
    for at, values, packed in _parts(matrix, codes, evaluate):
        units = _units(layer, values, at)
        size[at[0]] += np.einsum("nk,nk->n", units, units)
        units -= packed
        away[at[0]] += np.einsum("nk,nk->n", units, units)
    return float(np.sqrt(np.where(away == 0, 0, away / size)).max())


def _parts(
    matrix: Matrix, codes: PackedMatrix, evaluate: Evaluate
) -> Iterator[tuple[tuple[slice, slice], Array, Int8]]:
    """(rows and columns, values, codes) of blocks of the matrix."""
    content = matrix.content
    most = _MANY_NODES if content.is_looked_up else BLOCK
    for rows in matrix.blocks(codes.fmt, most=PACKED):
        packed = matrix.as_content(codes.read(*matrix.place(rows), matrix.order))
        for some in content.block_rows(most=most, of=rows):
            values = floats(evaluate(content.leaves_of(some)))
            here = packed[some.start - rows.start : some.stop - rows.start]
            yield matrix.place(some), matrix.as_content(values), matrix.as_content(here)


def _are_levels(values: Array, scale: NDArray[np.float32], codes: Int8) -> bool:
    """Whether all values are the codes times the scale, to the last bit."""
    levels = codes.astype(values.dtype)
    levels *= scale
    return np.array_equal(levels, values)
