"""The op in standard ONNX ops: what runs where the kernel library is not registered.

One model-local function serves every node of a model, since all numbers are attributes and all weights have
one format. It is the fast form of a fallback: the weights are decoded through a table of what each byte holds
(constant-folded by the runtime) into int8, and multiplied with uint8 activations, for which onnxruntime has
integer kernels; int8 x int8 is tens of times slower there. Weights in {-1, 0, 1} cannot saturate the 16-bit
sums of AVX2 machines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from bitcc import ops
from bitcc.ops import ActScale

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from bitcc.formats import WeightFormat

MIN_OPSET = 13
CASTS_SINCE = 15  # CastLike; in older models X is float32
_AXES_ARE_INPUTS = 18  # ReduceMax; ReduceSum since 13
_SPLIT_COUNTS = 18  # its outputs, in an attribute
_FLOATS = ("act_floor", "act_eps", "qmax", "act_min", "act_max", "norm_eps")
_INTS = ("N", "K", "act_scale", "act_scope", "bias_before_scale", "norm")
_FORMS = {
    "is_divide": {ActScale.DIVIDE},
    "is_product": {ActScale.PRODUCT},
    "is_step_product": {ActScale.STEP_PRODUCT},
    "is_normalized": {ActScale.NORMALIZED},
    "is_step_sum": {ActScale.STEP_SUM},
    "is_step_reciprocal": {ActScale.STEP_RECIPROCAL},
    "divides_by_step": {ActScale.QUOTIENT, ActScale.STEP_PRODUCT, ActScale.STEP_SUM},
    "divides_by_largest": {ActScale.PRODUCT, ActScale.NORMALIZED},
    "only_divides": {ActScale.QUOTIENT, ActScale.STEP_PRODUCT, ActScale.STEP_SUM, ActScale.NORMALIZED},
}
"""Of which forms of the scale each condition holds."""


def function(opset: int, weight_format: WeightFormat) -> FunctionProto:
    """The function ``bitcc::BitLinear`` for a model of that opset, at least ``MIN_OPSET``.

    Before ``CASTS_SINCE`` it takes float32 alone.
    """
    nodes = [
        *_constants(),
        *_normalize(opset),
        *_quantize(opset),
        *decode(weight_format),
        *_epilogue(),
        as_given(opset),
    ]
    attributes = list(ops.BitLinear(1, 1).attributes())
    return helper.make_function(
        ops.DOMAIN,
        ops.BIT_LINEAR,
        ["X", "W", "w_scale", "bias", "gain"],
        ["Y"],
        nodes,
        [helper.make_opsetid("", opset)],
        attributes,
        doc_string="Ternary linear layer with int8 activations",
    )


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    """A standard node of one output; ``inputs`` are names between spaces."""
    return helper.make_node(op_type, inputs.split(), [output], **attributes)


def constant(output: str, value: ArrayLike) -> NodeProto:
    """A Constant; Python ints become int64."""
    return helper.make_node(
        "Constant", [], [output], value=numpy_helper.from_array(np.asarray(value), output)
    )


def attribute(output: str, kind: str, name: str) -> NodeProto:
    """A Constant whose value is an attribute of the call: kind is ``value_float``, ``value_int``..."""
    made = helper.make_node("Constant", [], [output])
    types = {"value_float": onnx.AttributeProto.FLOAT, "value_int": onnx.AttributeProto.INT}
    made.attribute.append(onnx.AttributeProto(name=kind, ref_attr_name=name, type=types[kind]))
    return made


def as_given(opset: int) -> NodeProto:
    """``y`` in the type of X, as the output."""
    return node("CastLike", "y X", "Y") if opset >= CASTS_SINCE else node("Identity", "y", "Y")


def _constants() -> list[NodeProto]:
    nodes = [attribute(name, "value_float", name) for name in _FLOATS]
    nodes += [attribute(name, "value_int", name) for name in _INTS]
    nodes += [constant(f"int_{i}", np.array([i], np.int64)) for i in (-1, 0, 1)]
    nodes += [
        constant("one", np.float32(1)),
        constant("zero", np.float32(0)),
        constant("infinity", np.float32(np.inf)),
        constant("zero_row", np.zeros(1, np.float32)),
        constant("one_int", np.int64(1)),
        constant("zero_point_float", np.float32(128)),
        constant("zero_point", np.uint8(128)),
        node("Equal", "act_scope one_int", "per_tensor"),
        node("Equal", "bias_before_scale one_int", "bias_first"),
        node("Equal", "norm one_int", "has_norm"),
    ]
    return nodes


def _reduce_last(op_type: str, value: str, output: str, opset: int) -> list[NodeProto]:
    axes_are_inputs = opset >= _AXES_ARE_INPUTS
    reduce = (
        node(op_type, f"{value} int_-1", f"{output}_all", keepdims=1)
        if axes_are_inputs
        else node(op_type, value, f"{output}_all", keepdims=1, axes=[-1])
    )
    # onnxruntime keeps the input's shape when it reduces an empty batch; the slice mends that
    return [reduce, node("Slice", f"{output}_all int_0 int_1 int_-1", output)]


def _rounded(value: str, output: str) -> list[NodeProto]:
    """``value`` rounded to the attribute ``act_type``, in float32."""
    cast = helper.make_node("Cast", [value], [f"{output}_narrow"])
    cast.attribute.append(
        onnx.AttributeProto(name="to", ref_attr_name="act_type", type=onnx.AttributeProto.INT)
    )
    return [cast, node("Cast", f"{output}_narrow", output, to=TensorProto.FLOAT)]


def _normalize(opset: int) -> list[NodeProto]:
    """X -> x in float32, multiplied by ones where there is no norm."""
    return [
        node("Cast", "X", "x_given", to=TensorProto.FLOAT),
        node("Cast", "x_given", "x_double", to=TensorProto.DOUBLE),
        node("Mul", "x_double x_double", "squares"),
        *_reduce_last("ReduceMean", "squares", "mean_square_double", opset),
        node("Cast", "mean_square_double", "mean_square", to=TensorProto.FLOAT),
        node("Add", "mean_square norm_eps", "mean_square_above"),
        # in float64, and then the float32 of it: onnxruntime 1.17 has a Sqrt that is off by the last place
        node("Cast", "mean_square_above", "mean_square_wide", to=TensorProto.DOUBLE),
        node("Sqrt", "mean_square_wide", "root_wide"),
        node("Cast", "root_wide", "root", to=TensorProto.FLOAT),
        node("Reciprocal", "root", "inverse_root"),
        node("Where", "has_norm inverse_root one", "norm_scale"),
        node("Mul", "x_given norm_scale", "x_normalized"),
        node("Mul", "x_normalized gain", "x"),
    ]


def _quantize(opset: int) -> list[NodeProto]:
    """X -> Q uint8 (codes + 128) and the inverse scale, with all forms of the scale in one formula.

    The codes are round((x * multiplier) / divisor * after), where two of the three may be exactly 1. What
    depends on attributes alone is constant: a runtime computes it once, and drops a product with 1.
    """
    return [
        *_choices(opset),
        node("Abs", "x", "magnitude_or_nan"),
        node("IsNaN", "x", "is_nan"),  # runtimes may overlook NaN when they look for a maximum
        node("Where", "is_nan infinity magnitude_or_nan", "magnitude"),
        *_reduce_last("ReduceMax", "magnitude", "largest_token", opset),
        *_reduce_last("ReduceMin", "magnitude", "smallest", opset),
        node("Reshape", "largest_token int_-1", "largest_tokens"),
        node("Concat", "largest_tokens zero_row", "largest_some", axis=0),  # there may be no tokens
        node("ReduceMax", "largest_some", "largest_tensor", keepdims=1),
        node("Where", "per_tensor largest_tensor largest_token", "largest"),
        node("Max", "largest act_floor", "floored"),
        node("Add", "floored largest_eps", "bounded_exact"),
        *_rounded("bounded_exact", "bounded"),
        node("Div", "bounded step_divisor", "quotient"),
        node("Mul", "quotient step_factor", "step_alone_exact"),
        *_rounded("step_alone_exact", "step_alone"),
        node("Add", "step_alone step_eps", "step_exact"),
        *_rounded("step_exact", "step"),
        node("Where", "is_step_reciprocal step bounded", "inverted"),
        node("Reciprocal", "inverted", "reciprocal_exact"),
        *_rounded("reciprocal_exact", "reciprocal"),
        node("Mul", "reciprocal reciprocal_factor", "scale_reciprocal"),
        node("Div", "qmax bounded", "scale_divide"),
        node("Where", "is_divide scale_divide scale_reciprocal", "scale_exact"),
        *_rounded("scale_exact", "scale"),
        node("Where", "only_divides one scale", "one_or_scale"),
        node("Where", "is_product qmax one_or_scale", "multiplier"),
        node("Where", "divides_by_step step one", "step_or_one"),
        node("Where", "divides_by_largest bounded step_or_one", "divisor"),
        node("Mul", "x multiplier", "multiplied_exact"),
        *_rounded("multiplied_exact", "multiplied"),
        node("Div", "multiplied divisor", "divided_exact"),
        *_rounded("divided_exact", "divided"),
        node("Mul", "divided after", "scaled_exact"),
        *_rounded("scaled_exact", "scaled"),
        node("Round", "scaled", "rounded"),
        node("Clip", "rounded act_min act_max", "codes"),
        node("Add", "codes zero_point_float", "shifted"),
        node("Cast", "shifted", "Q", to=TensorProto.UINT8),
        node("Mul", "multiplier after", "whole_multiplier"),
        node("Div", "divisor whole_multiplier", "inverse_alone"),
        # only 0 * infinity and 0 / 0 are NaN now; 0 * infinity makes all outputs of the token NaN
        node("Mul", "smallest multiplier", "smallest_multiplied_exact"),
        *_rounded("smallest_multiplied_exact", "smallest_multiplied"),
        node("Div", "smallest_multiplied divisor", "smallest_scaled"),
        node("IsNaN", "smallest_scaled", "has_no_codes"),
        node("Where", "has_no_codes infinity inverse_alone", "inverse_or_infinity"),
        node("Mul", "inverse_or_infinity zero", "zero_or_nan"),
    ]


def _choices(opset: int) -> list[NodeProto]:
    """What the attributes say of the scale: conditions, and numbers that change nothing where none is."""
    count: dict[str, Any] = {"num_outputs": len(_FORMS)} if opset >= _SPLIT_COUNTS else {}
    return [
        constant("forms", [[form in forms for forms in _FORMS.values()] for form in ActScale]),
        node("Gather", "forms act_scale", "form"),
        helper.make_node("Split", ["form"], list(_FORMS), **count),
        node("Reciprocal", "qmax", "inverse_qmax_exact"),
        *_rounded("inverse_qmax_exact", "inverse_qmax"),
        node("Where", "is_step_product one qmax", "step_divisor"),
        node("Where", "is_step_product inverse_qmax one", "step_factor"),
        node("Where", "is_step_reciprocal one qmax", "reciprocal_factor"),
        node("Where", "is_normalized qmax one", "after"),
        node("Where", "is_step_sum zero act_eps", "largest_eps"),
        node("Where", "is_step_sum act_eps zero", "step_eps"),
    ]


def decode(weight_format: WeightFormat) -> list[NodeProto]:
    """W [N/16, vectors, 64] -> ``weights`` int8 [K, N]; a function of constants, so runtimes fold it."""
    table = weight_format.byte_weights
    return [
        constant("table", table),
        constant("split", np.array([0, 0, 16, 4, table.shape[1]], np.int64)),  # tile, vector, n, kk, i
        node("Cast", "W", "bytes", to=TensorProto.INT32),
        node("Gather", "table bytes", "crumbs"),
        node("Reshape", "crumbs split", "split_crumbs"),
        node("Transpose", "split_crumbs", "ordered", perm=[1, 4, 3, 0, 2]),  # vector, i, kk, tile, n
        constant("tile_rows", np.array([16], np.int64)),
        constant("almost_a_tile", np.array([15], np.int64)),
        node("Add", "N almost_a_tile", "n_above"),
        node("Div", "n_above tile_rows", "tiles"),
        node("Mul", "tiles tile_rows", "n_padded"),
        node("Concat", "int_-1 n_padded", "matrix_shape", axis=0),
        node("Reshape", "ordered matrix_shape", "padded"),
        node("Reshape", "K int_-1", "k_end"),
        node("Reshape", "N int_-1", "n_end"),
        node("Concat", "k_end n_end", "ends", axis=0),
        constant("starts", np.array([0, 0], np.int64)),
        node("Slice", "padded starts ends", "weights"),
    ]


def _epilogue() -> list[NodeProto]:
    return [
        node("MatMulInteger", "Q weights zero_point", "acc"),
        node("Cast", "acc", "sum", to=TensorProto.FLOAT),
        node("Where", "bias_first bias zero", "bias_scaled"),
        node("Where", "bias_first zero bias", "bias_added"),
        node("Mul", "inverse_or_infinity w_scale", "output_scale_or_infinity"),
        # the NaN comes last: of a Mul, onnxruntime would make a MatMulIntegerToFloat, which multiplies
        # a constant that is added behind the op by the scale of the token too
        node("Add", "output_scale_or_infinity zero_or_nan", "output_scale"),
        node("Add", "sum bias_scaled", "biased"),
        node("Mul", "biased output_scale", "dequantised"),
        node("Add", "dequantised bias_added", "y"),
    ]
