"""One node of an op of ours, run by the numpy spec, by onnxruntime and by onnx's own evaluator."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from bitcc import formats, function_body, ops, ternary_linear
from bitcc.ops import Norm
from bitcc.ternary_linear import TernaryLinear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.ops import BitLinear

    Array = NDArray[Any]
    Op = BitLinear | TernaryLinear

DTYPES = {
    "float32": (np.dtype(np.float32), TensorProto.FLOAT),
    "float16": (np.dtype(np.float16), TensorProto.FLOAT16),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), TensorProto.BFLOAT16),
}


def model_of(op: Op, dtype: str = "float32", opset: int = 18) -> onnx.ModelProto:
    """One node and the function; weight, scale and bias are inputs."""
    element = DTYPES[dtype][1]
    is_float = isinstance(op, TernaryLinear)
    function = (ternary_linear if is_float else function_body).function(
        opset, formats.FORMATS[op.weight_format]
    )
    node = helper.make_node(function.name, list(function.input), ["Y"], domain="bitcc", **op.attributes())
    types = dict.fromkeys(function.input, TensorProto.FLOAT) | {"X": element, "W": TensorProto.UINT8}
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, element, None) for name, element in types.items()],
        [helper.make_tensor_value_info("Y", element, None)],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("bitcc", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function])
    model.ir_version = max(helper.find_min_ir_version_for(opsets[:1]), 8)
    return model


@functools.lru_cache(maxsize=64)
def session_of(op: Op, dtype: str, opset: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = model_of(op, dtype, opset).SerializeToString()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_in_onnxruntime(op: Op, feeds: dict[str, Array], dtype: str = "float32", opset: int = 18) -> Array:
    """By OrtValues, since bfloat16 has no numpy type there."""
    session = session_of(op, dtype, opset)
    values = {}
    for name, array in feeds.items():
        element = DTYPES[dtype][1] if name == "X" else helper.np_dtype_to_tensor_dtype(array.dtype)
        plain = array.view(np.uint16) if dtype == "bfloat16" and name == "X" else array
        values[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(plain), element)
    (y,) = session.run_with_ort_values(["Y"], values)
    if dtype != "bfloat16":
        return np.asarray(y.numpy())
    shape = y.shape()
    raw = ctypes.string_at(y.data_ptr(), 2 * int(np.prod(shape))) if 0 not in shape else b""
    return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(shape)


def run_in_onnx(op: Op, feeds: dict[str, Array], dtype: str = "float32", opset: int = 18) -> Array:
    with np.errstate(all="ignore"):
        (y,) = ReferenceEvaluator(model_of(op, dtype, opset)).run(None, feeds)
    return np.asarray(y)


def layer(op: Op, seed: int = 0, *, per_row: bool = True, codes: Array | None = None) -> dict[str, Array]:
    """Random weights, scale and bias of an op."""
    rng = np.random.default_rng(seed)
    rows = op.N if per_row else 1
    groups = (op.groups,) if isinstance(op, TernaryLinear) else ()
    codes = rng.integers(-1, 2, (op.N, op.K)).astype(np.int8) if codes is None else codes
    made = {
        "W": formats.FORMATS[op.weight_format].pack(codes),
        "w_scale": rng.uniform(0.01, 3, (*groups, rows)).astype(np.float32),
        "bias": rng.standard_normal(rows).astype(np.float32),
    }
    if isinstance(op, TernaryLinear):
        return made
    has_gain = op.norm is not Norm.NONE
    gain = rng.uniform(0.5, 2, op.K if per_row else 1).astype(np.float32) if has_gain else ops.ONE
    return {**made, "gain": gain}


def spec(op: Op, feeds: dict[str, Array]) -> Array:
    """By numpy."""
    arguments = feeds["X"], feeds["W"], feeds["w_scale"], feeds["bias"]
    if isinstance(op, TernaryLinear):
        return ternary_linear.reference(*arguments, op)
    return ops.reference(*arguments, op, gain=feeds["gain"])


def assert_bits_equal(got: Array, want: Array) -> None:
    """Any NaN equals any other; a zero equals only the zero of its sign."""
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    unsigned = np.dtype(f"u{want.dtype.itemsize}")
    nan = np.isnan(want.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(got.astype(np.float32)), nan)
    np.testing.assert_array_equal(np.where(nan, 0, got.view(unsigned)), np.where(nan, 0, want.view(unsigned)))


def assert_all_agree(op: Op, feeds: dict[str, Array], dtype: str = "float32", opset: int = 18) -> Array:
    want = spec(op, feeds)
    assert_bits_equal(run_in_onnxruntime(op, feeds, dtype, opset), want)
    assert_bits_equal(run_in_onnx(op, feeds, dtype, opset), want)
    return want
