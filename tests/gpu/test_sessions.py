"""On a GPU, in onnxruntime: Y of the CUDA op is that of the CPU op, bit for bit.

Needs onnxruntime-gpu and a GPU that it can use; elsewhere all of this is skipped.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from emulation.cuda import inputs_of
from onnx import TensorProto, helper, numpy_helper

from bitcc import runtime_ops
from bitcc.ops import ActScale, ActScope, ActType, BitLinear, Norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CUDA = "CUDAExecutionProvider"
pytestmark = pytest.mark.skipif(
    CUDA not in ort.get_available_providers(), reason="this onnxruntime has no CUDA"
)

BASE = BitLinear(K=130, N=35)
OPS = [
    BASE,
    *(replace(BASE, act_scale=form) for form in ActScale),
    *(replace(BASE, act_scope=ActScope.TENSOR, act_type=kind) for kind in ActType),
    replace(BASE, act_type=ActType.FLOAT16, act_scale=ActScale.PRODUCT, bias_before_scale=1),
    replace(BASE, norm=Norm.RMS, norm_eps=1e-6),
    replace(BASE, norm=Norm.RMS, norm_eps=1e-6, act_scope=ActScope.TENSOR, act_type=ActType.BFLOAT16),
    replace(BASE, weight_format="t5", act_floor=0.0, qmax=128.0),
    BitLinear(K=1, N=1),
    BitLinear(K=4200, N=1000),
    BitLinear(K=65536, N=3),
    BitLinear(K=2560, N=1728, norm=Norm.RMS, norm_eps=1e-5),
]
TYPES = [np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
TOKENS = [(1,), (2,), (7,), (8, 4), (33,), (65,), (2, 150), (0,), (3, 0)]


@pytest.fixture(scope="session")
def library() -> Path:
    """Built, or brought along to a machine that has no compilers."""
    if "BITCC_CUDA_LIBRARY" in os.environ:
        return Path(os.environ["BITCC_CUDA_LIBRARY"])
    from bitcc import libraries  # noqa: PLC0415 - needs TVM

    return libraries.library_path("cuda")


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("op", OPS, ids=str)
def test_y_is_that_of_the_cpu(library: Path, op: BitLinear, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    model = one_node(op, inputs_of(op, rng), dtype)
    gpu, cpu = opened(model, library, CUDA), opened(model, library)
    for leading in TOKENS if op.K < 5000 else TOKENS[:5]:
        x = rng.normal(0, 1, (*leading, op.K)).astype(dtype)
        np.testing.assert_array_equal(run(gpu, X=x), run(cpu, X=x), str(leading))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("tokens", [300, 1100])  # enough for `gemm` and `gemm_many` on 132 SMs
def test_many_outputs_are_those_of_the_cpu(library: Path, dtype: Any, tokens: int) -> None:
    rng = np.random.default_rng(6)
    op = BitLinear(K=200, N=4001 if tokens == 300 else 4000)
    model = one_node(op, inputs_of(op, rng), dtype)
    x = rng.normal(0, 1, (tokens, op.K)).astype(dtype)
    np.testing.assert_array_equal(run(opened(model, library, CUDA), X=x), run(opened(model, library), X=x))


@pytest.mark.parametrize("scope", ActScope)
@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan, 0.0])
def test_special_values_poison_what_they_do_on_the_cpu(
    library: Path, scope: ActScope, special: float
) -> None:
    op = replace(BASE, act_scope=scope, act_floor=0.0)
    rng = np.random.default_rng(2)
    model = one_node(op, inputs_of(op, rng), TYPES[0])
    x = rng.normal(0, 1, (40, op.K)).astype(np.float32)
    x[1], x[3, 69], x[5] = 0.0, special, 1e-45
    np.testing.assert_array_equal(run(opened(model, library, CUDA), X=x), run(opened(model, library), X=x))


def test_more_tokens_than_a_band_takes(library: Path) -> None:
    rng = np.random.default_rng(3)
    for scope in ActScope:
        op = BitLinear(K=64, N=16, act_scope=scope)
        model = one_node(op, inputs_of(op, rng), TYPES[0])
        x = rng.normal(0, 1, (70001, op.K)).astype(np.float32)
        np.testing.assert_array_equal(
            run(opened(model, library, CUDA), X=x), run(opened(model, library), X=x)
        )


def test_weights_that_are_fed(library: Path) -> None:
    rng = np.random.default_rng(4)
    inputs = inputs_of(BASE, rng)
    model = one_node(BASE, inputs, TYPES[0], dynamic=True)
    x = rng.normal(0, 1, (3, BASE.K)).astype(np.float32)
    gpu, cpu = opened(model, library, CUDA), opened(model, library)
    for _ in range(3):
        np.testing.assert_array_equal(run(gpu, X=x, **inputs), run(cpu, X=x, **inputs))
    wrong = {**inputs, "W": inputs["W"][:-1]}
    with pytest.raises(Exception, match="bitcc::BitLinear `bl0`: W is uint8"):
        run(gpu, X=x, **wrong)


def test_threads_in_one_session_and_several_sessions(library: Path) -> None:
    rng = np.random.default_rng(5)
    op = BitLinear(K=700, N=300, act_scope=ActScope.TENSOR)
    model = one_node(op, inputs_of(op, rng), TYPES[0])
    inputs = [rng.normal(0, 1, (m, op.K)).astype(np.float32) for m in (1, 5, 40, 200)]
    cpu = opened(model, library)
    want = [run(cpu, X=x) for x in inputs]
    sessions = [opened(model, library, CUDA) for _ in range(2)]

    def work(i: int) -> bool:
        return all(np.array_equal(run(sessions[(i + j) % 2], X=inputs[i]), want[i]) for j in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


@pytest.mark.parametrize("tokens", [1, 40])
def test_a_captured_graph_replays(library: Path, tokens: int) -> None:
    rng = np.random.default_rng(6)
    op = replace(BASE, act_scope=ActScope.TENSOR)
    model = one_node(op, inputs_of(op, rng), TYPES[0])
    cpu = opened(model, library)
    gpu = opened(model, library, (CUDA, {"enable_cuda_graph": "1"}))
    x = ort.OrtValue.ortvalue_from_numpy(np.zeros((tokens, op.K), np.float32), "cuda", 0)
    y = ort.OrtValue.ortvalue_from_numpy(np.zeros((tokens, op.N), np.float32), "cuda", 0)
    binding = gpu.io_binding()
    binding.bind_ortvalue_input("X", x)
    binding.bind_ortvalue_output("Y", y)
    for _ in range(4):
        values = rng.normal(0, 1, (tokens, op.K)).astype(np.float32)
        x.update_inplace(values)
        gpu.run_with_iobinding(binding)
        np.testing.assert_array_equal(y.numpy(), run(cpu, X=values))


def one_node(op: BitLinear, inputs: dict[str, Array], dtype: Any, *, dynamic: bool = False) -> bytes:
    element = helper.np_dtype_to_tensor_dtype(dtype)
    node = helper.make_node("BitLinear", ["X", *inputs], ["Y"], "bl0", domain="bitcc", **op.attributes())
    x = helper.make_tensor_value_info("X", element, None)
    fed = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
        for name, array in inputs.items()
    ]
    y = helper.make_tensor_value_info("Y", element, None)
    constants = [] if dynamic else [numpy_helper.from_array(a, name) for name, a in inputs.items()]
    graph = helper.make_graph([node], "g", [x, *(fed if dynamic else [])], [y], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bitcc", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def opened(model: bytes, library: Path, provider: Any = "CPUExecutionProvider") -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    runtime_ops.register(options, library)
    if provider != "CPUExecutionProvider":  # no node may go elsewhere
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return ort.InferenceSession(model, options, providers=[provider])


def run(session: ort.InferenceSession, **feeds: Array) -> Array:
    """Y. The Python API of onnxruntime has no bfloat16 arrays, only OrtValues of them."""
    values = {
        name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), TensorProto.BFLOAT16)
        if array.dtype == ml_dtypes.bfloat16
        else ort.OrtValue.ortvalue_from_numpy(array)
        for name, array in feeds.items()
    }
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("Y", "cpu")
    session.run_with_iobinding(binding)
    out = binding.get_outputs()[0]
    if out.data_type() != "tensor(bfloat16)":
        return np.asarray(out.numpy())
    count = int(np.prod(out.shape(), dtype=np.int64))
    raw = ctypes.string_at(out.data_ptr(), 2 * count) if count else b""
    return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(out.shape())
