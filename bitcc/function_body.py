"""The op in standard ONNX ops: what runs where the kernel library is not registered.

One model-local function serves every node of a model, since all numbers are attributes. It is the fast
form of a fallback: the weights are decoded through a table of 256 bytes (constant-folded by the runtime)
into int8, and multiplied with uint8 activations, for which onnxruntime has integer kernels; int8 x int8
is tens of times slower there. Weights in {-1, 0, 1} cannot saturate the 16-bit sums of AVX2 machines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from bitcc import ops

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MIN_OPSET = 15  # CastLike
_AXES_ARE_INPUTS = 18  # ReduceMax; ReduceSum since 13


def function(opset: int) -> FunctionProto:
    """The function ``bitcc::BitLinear`` for a model of that opset, at least ``MIN_OPSET``."""
    nodes = [*_constants(), *_quantize(opset), *_decode(), *_epilogue()]
    attributes = list(ops.BitLinear(1, 1).attributes())
    return helper.make_function(
        ops.DOMAIN,
        ops.BIT_LINEAR,
        ["X", "W", "w_scale", "bias"],
        ["Y"],
        nodes,
        [helper.make_opsetid("", opset)],
        attributes,
        doc_string="Ternary linear layer with int8 activations; see https://pypi.org/project/bitcc",
    )


def _node(op_type: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], **attributes)


def _constant(output: str, value: ArrayLike) -> NodeProto:
    return helper.make_node(
        "Constant", [], [output], value=numpy_helper.from_array(np.asarray(value), output)
    )


def _attribute(output: str, kind: str, name: str) -> NodeProto:
    """A Constant whose value is an attribute of the call: kind is ``value_float``, ``value_int``..."""
    node = helper.make_node("Constant", [], [output])
    types = {"value_float": onnx.AttributeProto.FLOAT, "value_int": onnx.AttributeProto.INT}
    node.attribute.append(onnx.AttributeProto(name=kind, ref_attr_name=name, type=types[kind]))
    return node


def _constants() -> list[NodeProto]:
    floats = ["act_floor", "act_eps", "qmax", "act_min", "act_max"]
    nodes = [_attribute(name, "value_float", name) for name in floats]
    nodes += [_attribute(name, "value_int", name) for name in ("N", "K", "act_scale", "bias_before_scale")]
    nodes += [_constant(f"int_{i}", np.array([i], np.int64)) for i in (-1, 0, 1)]
    nodes += [
        _constant("one", np.float32(1)),
        _constant("zero", np.float32(0)),
        _constant("one_int", np.int64(1)),
        _constant("two_int", np.int64(2)),
        _constant("zero_point_float", np.float32(128)),
        _constant("zero_point", np.uint8(128)),
        _node("Equal", "act_scale one_int", "divides"),
        _node("Equal", "act_scale two_int", "is_quotient"),
        _node("Equal", "bias_before_scale one_int", "bias_first"),
    ]
    return nodes


def _reduce_last(op_type: str, value: str, output: str, opset: int) -> list[NodeProto]:
    axes_are_inputs = opset >= _AXES_ARE_INPUTS
    reduce = (
        _node(op_type, f"{value} int_-1", f"{output}_all", keepdims=1)
        if axes_are_inputs
        else _node(op_type, value, f"{output}_all", keepdims=1, axes=[-1])
    )
    # onnxruntime keeps the input's shape when it reduces an empty batch; the slice mends that
    return [reduce, _node("Slice", f"{output}_all int_0 int_1 int_-1", output)]


def _quantize(opset: int) -> list[NodeProto]:
    """X -> Q uint8 (codes + 128) and ``inverse``, with both forms of the scale in one formula.

    The codes are round((x * multiplier) / divisor), where one of the two is exactly 1.
    """
    return [
        _node("Cast", "X", "x", to=TensorProto.FLOAT),
        _node("Abs", "x", "magnitude"),
        *_reduce_last("ReduceMax", "magnitude", "largest", opset),
        *_reduce_last("ReduceL1", "x", "total", opset),
        _node("Max", "largest act_floor", "floored"),
        _node("Add", "floored act_eps", "bounded"),
        _node("Reciprocal", "bounded", "reciprocal"),
        _node("Mul", "reciprocal qmax", "scale_reciprocal"),
        _node("Div", "qmax bounded", "scale_divide"),
        _node("Where", "divides scale_divide scale_reciprocal", "scale"),
        _node("Div", "bounded qmax", "quotient"),
        _node("Where", "is_quotient one scale", "multiplier"),
        _node("Where", "is_quotient quotient one", "divisor"),
        _node("Mul", "x multiplier", "multiplied"),
        _node("Div", "multiplied divisor", "scaled"),
        _node("Round", "scaled", "rounded"),
        _node("Clip", "rounded act_min act_max", "codes"),
        _node("Add", "codes zero_point_float", "shifted"),
        _node("Cast", "shifted", "Q", to=TensorProto.UINT8),
        _node("Div", "divisor multiplier", "inverse_finite"),
        # a token with NaN, infinity or no usable scale has no codes: 0 * infinity makes its outputs NaN
        _node("Reciprocal", "divisor", "per_divisor"),
        _node("Sum", "total multiplier per_divisor", "suspect"),
        _node("Mul", "suspect zero", "poison"),
        _node("Add", "inverse_finite poison", "inverse"),
    ]


def _decode() -> list[NodeProto]:
    """W [N/16, K/16, 64] -> ``weights`` int8 [K, N]; a function of constants, so runtimes fold it."""
    byte = np.arange(256)[:, None]
    table = (((byte >> np.array([0, 2, 4, 6])) & 3) - 1).astype(np.int8)  # [256, 4]: the codes of a byte
    return [
        _constant("table", table),
        _constant("split", np.array([0, 0, 16, 4, 4], np.int64)),  # tile, vector, n, kk, i
        _node("Cast", "W", "bytes", to=TensorProto.INT32),
        _node("Gather", "table bytes", "crumbs"),
        _node("Reshape", "crumbs split", "split_crumbs"),
        _node("Transpose", "split_crumbs", "ordered", perm=[1, 4, 3, 0, 2]),  # vector, i, kk, tile, n
        _constant("tile_rows", np.array([16], np.int64)),
        _constant("almost_a_tile", np.array([15], np.int64)),
        _node("Add", "N almost_a_tile", "n_above"),
        _node("Div", "n_above tile_rows", "tiles"),
        _node("Mul", "tiles tile_rows", "n_padded"),
        _node("Concat", "int_-1 n_padded", "matrix_shape", axis=0),
        _node("Reshape", "ordered matrix_shape", "padded"),
        _node("Reshape", "K int_-1", "k_end"),
        _node("Reshape", "N int_-1", "n_end"),
        _node("Concat", "k_end n_end", "ends", axis=0),
        _constant("starts", np.array([0, 0], np.int64)),
        _node("Slice", "padded starts ends", "weights"),
    ]


def _epilogue() -> list[NodeProto]:
    return [
        _node("MatMulInteger", "Q weights zero_point", "acc"),
        _node("Cast", "acc", "sum", to=TensorProto.FLOAT),
        _node("Where", "bias_first bias zero", "bias_scaled"),
        _node("Where", "bias_first zero bias", "bias_added"),
        _node("Mul", "inverse w_scale", "output_scale"),
        _node("Add", "sum bias_scaled", "biased"),
        _node("Mul", "biased output_scale", "dequantised"),
        _node("Add", "dequantised bias_added", "y"),
        _node("CastLike", "y X", "Y"),
    ]
