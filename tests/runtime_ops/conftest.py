"""A library of the shim and naive kernels, and models of one node."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from emulation import amx
from onnx import TensorProto, helper, numpy_helper

from bitcc import formats, libraries, ops, runtime_ops, targets, ternary_linear
from bitcc.targets import x86_64

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HERE = Path(__file__).parent
FLAGS = [
    *("-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"),
]
TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(ml_dtypes.bfloat16): TensorProto.BFLOAT16,
}


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles the shim with the reference kernels; `variants` is what variants.inc says."""

    def run(*flags: str, variants: str = "BITCC_VARIANT(scalar, 0, 3, 4, 3, 2, 3, 8, 2, 1, 0, 1)\n") -> Path:
        folder = tmp_path_factory.mktemp("library")
        (folder / "variants.inc").write_text(variants)
        out = folder / "libbitcc_ops.so"
        paths = [*runtime_ops.sources(), HERE / "reference_kernels.c"]
        includes = [f"-I{runtime_ops.include_dir()}", f"-I{folder}", '-DBITCC_VERSION="1.2.3"']
        command = ["cc", *FLAGS, *includes, *flags, *map(str, paths), "-lm", "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return out

    return run


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest, build: Callable[..., Path]) -> Path:
    """With the reference kernels, or, where a test asks for it, `built` as users get it or `emulated` AMX.

    The reference kernels read `t5`, or, where a test asks for `expanding`, they do not, and they multiply
    pairs where it asks for `pairs`.
    """
    kind = getattr(request, "param", "reference")
    if kind == "reference":
        return build()
    if kind == "expanding":
        return build(variants="BITCC_VARIANT(scalar, 0, 3, 4, 3, 2, 3, 8, 2, 0, 0, 1)\n")
    if kind == "pairs":
        return build(variants="BITCC_VARIANT(scalar, 0, 3, 4, 3, 2, 3, 8, 2, 1, 1, 3)\n")
    if kind == "built":
        return libraries.library_path("x86-64")
    sources, include = (*runtime_ops.sources(), amx.SOURCE), runtime_ops.include_dir()
    return targets.build_library(amx.EMULATED, sources=sources, include=include, version="1.2.3")


@pytest.fixture
def session(library: Path) -> Callable[..., ort.InferenceSession]:
    """Opens a model, serialized or a file, with the library or without any."""

    def make(
        model: onnx.ModelProto | Path, *, threads: int = 1, library: Path | None = library
    ) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        if library is not None:
            runtime_ops.register(options, library)
        source = str(model) if isinstance(model, Path) else model.SerializeToString()
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    return make


@pytest.fixture(params=[variant.name for variant in x86_64.TARGET.variants])
def isa(request: pytest.FixtureRequest, library: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each variant that the library has and this CPU runs; it is the one that runs."""
    name: str = request.param
    monkeypatch.setenv("BITCC_ISA", name)
    if runtime_ops.library_info(library).selected is None:
        pytest.skip(f"{name} is not in this library or cannot run on this CPU")
    return name


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


class Layer:
    """Random weights for one node, the model around it, and what it must compute."""

    def __init__(
        self, rng: np.random.Generator, op: ops.BitLinear | ternary_linear.TernaryLinear, *, per_row: bool
    ) -> None:
        self.op = op
        rows = op.N if per_row else 1
        scales = (op.groups, rows) if isinstance(op, ternary_linear.TernaryLinear) else (rows,)
        self.weights = rng.integers(-1, 2, (op.N, op.K)).astype(np.int8)
        self.inputs: dict[str, np.ndarray[Any, Any]] = {
            "W": formats.get(op.weight_format, op.layout_version).pack(self.weights),
            "w_scale": rng.uniform(0.01, 2, scales).astype(np.float32),
            "bias": rng.normal(0, 3, rows).astype(np.float32),
        }
        if isinstance(op, ops.BitLinear):
            gain = rng.uniform(0.5, 2, op.K if per_row else 1).astype(np.float32)
            self.inputs["gain"] = ops.ONE if op.norm is ops.Norm.NONE else gain

    def model(
        self,
        x: np.ndarray[Any, Any],
        *,
        dims: Sequence[int | str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        dynamic: Sequence[str] = (),
    ) -> onnx.ModelProto:
        """One node named `bl0`; `dynamic` inputs are fed, the others are initializers.

        `attributes` replace those of the op; None leaves one out.
        """
        element = TYPES.get(x.dtype, TensorProto.DOUBLE)
        dims = [f"d{i}" for i in range(x.ndim - 1)] + [self.op.K] if dims is None else list(dims)
        merged = {**self.op.attributes(), **(attributes or {})}
        present = {key: value for key, value in merged.items() if value is not None}
        kind = type(self.op).__name__
        node = helper.make_node(kind, ["X", *self.inputs], ["Y"], "bl0", domain="bitcc", **present)
        fed = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(self.inputs[name].dtype), None
            )
            for name in dynamic
        ]
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("X", element, dims), *fed],
            [helper.make_tensor_value_info("Y", element, None)],
            [numpy_helper.from_array(a, k) for k, a in self.inputs.items() if k not in dynamic],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bitcc", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def pack(self) -> np.ndarray[Any, Any]:
        """The bytes of `weights`, which may have changed."""
        return np.asarray(formats.get(self.op.weight_format, self.op.layout_version).pack(self.weights))

    def expected(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What the numpy spec of the op says."""
        packed, scale, bias = (self.inputs[k] for k in ("W", "w_scale", "bias"))
        if isinstance(self.op, ternary_linear.TernaryLinear):
            return ternary_linear.reference(x, packed, scale, bias, self.op)
        return ops.reference(x, packed, scale, bias, self.op, gain=self.inputs["gain"])

    @staticmethod
    def run(opened: ort.InferenceSession, **inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The one output; onnxruntime's Python API has no bfloat16 arrays, only OrtValues of them."""
        feeds = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), TensorProto.BFLOAT16)
            if array.dtype == ml_dtypes.bfloat16
            else ort.OrtValue.ortvalue_from_numpy(array)
            for name, array in inputs.items()
        }
        out = opened.run_with_ort_values(None, feeds)[0]
        if out.data_type() != "tensor(bfloat16)":
            return np.asarray(out.numpy())
        count = int(np.prod(out.shape(), dtype=np.int64))
        raw = ctypes.string_at(out.data_ptr(), 2 * count) if count else b""
        return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(out.shape())


@pytest.fixture
def layer(rng: np.random.Generator) -> Callable[..., Layer]:
    """A BitLinear of given attributes with random weights."""

    def make(*, per_row: bool = True, **attributes: Any) -> Layer:
        return Layer(rng, ops.BitLinear(**attributes), per_row=per_row)

    return make


@pytest.fixture
def ternary(rng: np.random.Generator) -> Callable[..., Layer]:
    """A TernaryLinear of given attributes with random weights."""

    def make(*, per_row: bool = True, **attributes: Any) -> Layer:
        return Layer(rng, ternary_linear.TernaryLinear(**attributes), per_row=per_row)

    return make
