"""Check every weight of a rewrite: what the packed bytes say against what the original's nodes compute.

The nodes between the latent weights and the product run in onnxruntime as they are, a few rows at a time or,
where the weights are a function of 16 bits, once for each of the 65536 patterns. Only reductions of weights
are taken from bitcc's own evaluation, which accumulates in float64: a mean that a runtime sums in another
order can move a weight code by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from bitcc import formats
from bitcc.passes._refused import Refused
from bitcc.passes.elementwise import Table
from bitcc.passes.levels import floats
from bitcc.passes.weight import weight_as_read, weight_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from bitcc.formats import Int8
    from bitcc.passes.constants import Constants
    from bitcc.passes.detect import Layer
    from bitcc.passes.elementwise import Elementwise, Matrix
    from bitcc.passes.runner import Runner

    Array = NDArray[Any]
    Evaluate = Callable[[Mapping[ir.Value, Array]], Array]

_STRAY = 5e-6  # of the scale: what each weight of a table may be away from its level
_NO_CODE = 2


def weight_error(
    layer: Layer, packed: formats.Bytes, constants: Constants, runner: Runner, *, rounded: bool
) -> float:
    """How far the packed weights are from the original ones: the largest over the rows of |W - W'| / |W'|.

    Args:
        layer: What was found.
        packed: Its weights in the format of its op.
        constants: Of the model.
        runner: Of the model.
        rounded: Whether the original computed its weights in half precision: then they need only be nearest
            to the levels that were packed, and the error is 0.

    Raises:
        Refused: the packed weights have another shape, or are not nearest to the original's.
    """
    codes = formats.get(layer.op.weight_format, layer.op.layout_version).unpack(
        packed, layer.op.N, layer.op.K
    )
    matrix = (weight_matrix if rounded else weight_as_read)(layer.node, constants)
    if matrix.shape != codes.shape:
        raise Refused("packed, its weights have another shape")
    with np.errstate(all="ignore"):  # a table has infinities and NaN, whether they are used or not
        if rounded:
            _check_nearest(matrix, codes, layer)
            return 0.0
        return _error(matrix, codes, layer, runner)


def _error(matrix: Matrix, codes: Int8, layer: Layer, runner: Runner) -> float:
    evaluate = _in_onnxruntime(matrix.content, runner) or matrix.content.evaluate
    table, scale = matrix.content.table, layer.ternary.scale
    if table is not None and scale.size == 1:
        error = _table_error(matrix, table, codes, float(scale.item()), evaluate)
        if error is not None:
            return error
    return _row_error(matrix, codes, layer, evaluate)


def _in_onnxruntime(content: Elementwise, runner: Runner) -> Evaluate | None:
    """The evaluation of the nodes by onnxruntime; None where it does not take them or their types."""
    if any(leaf.dtype.kind == "V" for leaf in content.leaves.values()):
        return None  # such as bfloat16, which numpy does not know
    types = {v: (ir.DataType.from_numpy(leaf.dtype), None) for v, leaf in content.leaves.items()}
    try:
        return runner.prepare(content.nodes, types, content.value) if content.nodes else None
    except Refused:
        return None


def _check_nearest(matrix: Matrix, codes: Int8, layer: Layer) -> None:
    scale = layer.ternary.scale
    table = matrix.content.table
    if table is not None and scale.size == 1:
        values = floats(table.values)
        known = np.full(values.shape, _NO_CODE, np.int8)
        for code in (-1, 0, 1):
            known[np.abs(values - code * scale.item()) < scale.item() / 2] = code
        good = _has_codes(matrix, table, known, codes)
    else:
        good = all(
            bool((np.abs(_units(layer, floats(matrix.tile(*at)), at) - codes[at]) < 0.5).all())
            for at in matrix.tiles()
        )
    if not good:
        raise Refused("packed, its weights are not those of the original")


def _has_codes(matrix: Matrix, table: Table, known: Int8, codes: Int8) -> bool:
    """Whether the codes [N, K] are those that ``known`` says of each pattern."""
    expected = Table(known, table.patterns)
    return all(np.array_equal(matrix.looked_up(expected, *at), codes[at]) for at in matrix.tiles())


def _units(layer: Layer, values: Array, at: tuple[slice, slice]) -> Array:
    """A tile in units of the scale."""
    scale = layer.ternary.scale
    if scale.size > 1:
        columns = np.arange(layer.op.K)[at[1]] // layer.ternary.group_size
        scale = scale[at[0]][:, columns] if scale.shape[1] > 1 else scale[at[0]]
    units: Array = values * (1 / scale).astype(values.dtype)
    return units


def _table_error(matrix: Matrix, table: Table, codes: Int8, scale: float, evaluate: Evaluate) -> float | None:
    """The largest |W - W'| / scale; None if a weight is far from its level, or from all of them."""
    values = floats(evaluate(matrix.content.patterns())) / np.float32(scale)
    sizes = np.arange(1 << 16) & 0x7FFF  # without their sign: ordered like what they stand for
    used = sizes <= max(int((table.patterns[rows] & 0x7FFF).max()) for rows in matrix.content.block_rows())
    known = np.full(values.shape, _NO_CODE, np.int8)
    stray = np.full(values.shape, np.inf)
    for code in (-1, 0, 1):
        away = np.abs(values - code)
        near = (away <= _STRAY) & used
        known[near], stray[near] = code, away[near]
    if not _has_codes(matrix, table, known, codes):
        return None
    return float(stray[known != _NO_CODE].max())


def _row_error(matrix: Matrix, codes: Int8, layer: Layer, evaluate: Evaluate) -> float:
    away, size = np.zeros(codes.shape[0]), np.zeros(codes.shape[0])
    for at in matrix.tiles():
        block = evaluate(matrix.content.leaves_of(at[1] if matrix.transposed else at[0]))
        units = _units(layer, matrix.oriented(floats(block)), at)
        size[at[0]] += np.einsum("nk,nk->n", units, units)
        units -= codes[at]
        away[at[0]] += np.einsum("nk,nk->n", units, units)
    return float(np.sqrt(np.where(away == 0, 0, away / size)).max())
