"""The custom op ``bitcc::TernaryLinear``: ternary weights, float activations (weight-only models).

    Y = (X @ codes.T) * scale + bias              with one scale for the tensor or each row
    Y = X @ (codes * scale).T + bias              with scales of groups

Inputs: X [..., K] float32, float16 or bfloat16; W uint8, packed (bitcc.formats); w_scale float32 [G, N] or
[G, 1], one scale for each group of ``group_size`` consecutive columns and each row (or for all rows), G =
ceil(K / group_size); bias float32 [1] or [N] (zero when the layer has none). Output: Y [..., N], of X's type.

Products and sums are float32 in an order that is each implementation's own: results agree to about
1e-6 of the sum of magnitudes, not bit for bit. Where the products are small integers the sums are exact,
so that what is zero stays zero for a sign that is taken of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import FunctionProto, TensorProto, helper

from bitcc import formats, function_body, ops

if TYPE_CHECKING:
    from numpy.typing import NDArray

TERNARY_LINEAR = "TernaryLinear"


@dataclass(frozen=True)
class TernaryLinear:
    """The attributes of one ``bitcc::TernaryLinear`` node; every one is always written.

    Attributes:
        K: Inputs, 1 to 65536.
        N: Outputs, at least 1.
        group_size: Columns of one scale: K, or a multiple of 16 that is smaller.
        weight_format: Name of a format of ``bitcc.formats``.
        layout_version: Version of its layout.
    """

    K: int
    N: int
    group_size: int
    weight_format: str = "t2"
    layout_version: int = 1

    def attributes(self) -> dict[str, int | str]:
        """The node attributes, as plain ints and strings."""
        return asdict(self)

    @property
    def groups(self) -> int:
        """G, the number of scales of a row."""
        return -(-self.K // self.group_size)


def reference(
    x: NDArray[Any],
    packed: NDArray[np.uint8],
    w_scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    op: TernaryLinear,
) -> NDArray[Any]:
    """The executable spec of the op.

    Args:
        x: [..., K] float32, float16 or bfloat16.
        packed: W in the layout of ``op.weight_format``.
        w_scale: float32 [G, N] or [G, 1].
        bias: float32 [1] or [N].
        op: The attributes.

    Returns:
        [..., N], of the type of ``x``.

    Raises:
        PackedWeightError: ``packed`` is not what the layout allows.
    """
    codes = formats.get(op.weight_format, op.layout_version).unpack(packed, op.N, op.K)
    tokens = x.reshape(-1, op.K).astype(np.float32)
    with np.errstate(all="ignore"):
        if op.groups == 1:
            y = (tokens @ codes.T.astype(np.float32)) * w_scale + bias
        else:
            by_column = np.repeat(w_scale, op.group_size, axis=0)[: op.K]  # [K, N] or [K, 1]
            y = tokens @ (codes.T * by_column) + bias
        return y.astype(x.dtype).reshape(*x.shape[:-1], op.N)


def function(opset: int, weight_format: formats.WeightFormat) -> FunctionProto:
    """The function body of the op, for models as that of ``function_body.function``."""
    node, constant, attribute = function_body.node, function_body.constant, function_body.attribute
    nodes = [
        *(attribute(name, "value_int", name) for name in ("N", "K", "group_size")),
        *(constant(f"int_{i}", [i]) for i in (-1, 0, 1)),
        *function_body.decode(weight_format),
        node("Cast", "weights", "levels", to=TensorProto.FLOAT),
        # w_scale [G, N] -> one row for each column of W
        node("Unsqueeze", "w_scale int_1", "grouped"),
        node("Reshape", "group_size int_-1", "group_rows"),
        node("Concat", "int_1 group_rows int_1", "one_group", axis=0),
        node("Expand", "grouped one_group", "expanded"),
        node("Shape", "w_scale", "scale_shape"),
        node("Slice", "scale_shape int_1 int_2", "scale_columns"),
        node("Concat", "int_-1 scale_columns", "by_column_shape", axis=0),
        node("Reshape", "expanded by_column_shape", "by_column_padded"),
        node("Slice", "by_column_padded int_0 k_end int_0", "by_column"),
        constant("one", np.float32(1)),
        node("Equal", "group_size K", "is_one_group"),
        node("Slice", "w_scale int_0 int_1 int_0", "first_row"),
        node("Reshape", "first_row int_-1", "first_group"),
        node("Where", "is_one_group one by_column", "factor_before"),
        node("Where", "is_one_group first_group one", "factor_behind"),
        node("Mul", "levels factor_before", "dense"),
        node("Cast", "X", "x", to=TensorProto.FLOAT),
        node("MatMul", "x dense", "product"),
        node("Mul", "product factor_behind", "scaled"),
        node("Add", "scaled bias", "y"),
        function_body.as_given(opset),
    ]
    nodes.insert(0, constant("int_2", [2]))
    return helper.make_function(
        ops.DOMAIN,
        TERNARY_LINEAR,
        ["X", "W", "w_scale", "bias"],
        ["Y"],
        nodes,
        [helper.make_opsetid("", opset)],
        list(TernaryLinear(16, 16, 16).attributes()),
        doc_string="Ternary linear layer with float activations",
    )
