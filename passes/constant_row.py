"""Read a constant as one number for each output of a layer, or as one for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants

    Row = NDArray[np.float64]


def constant_row(
    value: ir.Value, n: int, constants: Constants, y: ir.Value | None = None, axis: int = -1
) -> Row | None:
    """A constant as float64 [1] or [n], None if it differs over the tokens or would widen ``y``.

    Args:
        value: The constant.
        n: Outputs of the layer.
        constants: Of the model.
        y: What it is broadcast against, None if the node reads it as a row.
        axis: Of N, counted from the end.
    """
    if value not in constants:
        return None
    if value.shape is not None and value.shape.is_static() and np.prod(value.shape.numpy()) > n:
        return _repeated(value, n, constants, y, axis)
    array: NDArray[Any] = constants.array(value)
    rank = max(-axis, 1 if y is None or y.shape is None else y.shape.rank())
    is_row = array.size == n and array.ndim >= -axis and array.shape[axis] == n
    if array.ndim > rank or not (array.size == 1 or is_row):
        return None
    return array.reshape(-1).astype(np.float64)


def _repeated(value: ir.Value, n: int, constants: Constants, y: ir.Value | None, axis: int) -> Row | None:
    """The row that a constant repeats for each token: onnxruntime's optimiser folds an Expand to that."""
    if value.shape is None or y is None or y.shape is None:
        return None
    rank = value.shape.rank()
    if not -axis <= rank <= y.shape.rank() or value.shape[axis] != n:
        return None
    if any(size not in {1, token} for size, token in zip(value.shape, y.shape[-rank:], strict=True)):
        return None  # it widens y
    rows = np.moveaxis(constants.array(value), axis, -1).reshape(-1, n)
    return rows[0].astype(np.float64) if (rows == rows[0]).all() else None
