"""Peers outside of onnxruntime: libraries that multiply rows of packed weights, called from Python.

Their calls are timed as they are, a few microseconds of Python among them; each copy of the layer quantizes
its input itself, as our op does.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import weakref
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bitcc.bench.contenders import Layer

    Floats: TypeAlias = NDArray[np.float32]
    Rows: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class Bound:
    """Layers ready to run.

    Attributes:
        call: Runs all of them once.
        made: Their outputs, [M, N] each.
        cpus: Where threads that a call starts may run.
    """

    call: Callable[[], None]
    made: list[Floats]
    cpus: set[int] = field(default_factory=lambda: os.sched_getaffinity(0))

    def __call__(self) -> None:
        """Run all layers."""
        os.sched_setaffinity(0, self.cpus)
        self.call()

    def outputs(self) -> list[Floats]:
        """What the last run made, copy by copy."""
        return self.made


@dataclass(frozen=True)
class Packed:
    """Copies of a layer, packed when they are opened.

    Attributes:
        native: How.
        layer: What.
        copies: How many.
        weight_bytes: Of one.
    """

    native: Native
    layer: Layer
    copies: int
    weight_bytes: int
    in_session: ClassVar[bool] = False
    computes: ClassVar[bool] = True

    def open(self, x: Floats, threads: int, _: Path) -> Bound:
        """Pack all copies.

        Raises:
            ValueError: the library cannot have such layers.
        """
        k = self.layer.weights.shape[1]
        if k % self.native.multiple:
            raise ValueError(f"K must be a multiple of {self.native.multiple}")
        pack = self.native.pack
        whole = pack(self.layer.weights, self.layer.scale)
        rows = []
        for copy in range(self.copies):
            head = pack(self.layer.head(copy).weights, self.layer.scale)
            rows.append(np.concatenate([head, whole[len(head) :]]))
        return self.native.bind(rows, self.layer.scale, x, threads)


@dataclass(frozen=True)
class Native:
    """One such library.

    Attributes:
        name: Short, for tables and JSON.
        about: What runs.
        tolerance: Largest difference from our op relative to max|y|.
        bits: For one weight, scales included.
        multiple: K must be one of it.
        pack: Weights int8 [N, K] and scale float32 [1] to rows uint8 [N, bytes].
        bind: Copies of rows, scale, input float32 [M, K] and threads to what runs.
    """

    name: str
    about: str
    tolerance: float
    bits: float
    multiple: int
    pack: Callable[[NDArray[np.int8], Floats], Rows]
    bind: Callable[[list[Rows], Floats, Floats, int], Bound]

    def prepare(self, _: Path, layer: Layer, stream_bytes: int) -> Packed:
        """So many copies that they hold ``stream_bytes``; nothing is packed yet."""
        weight_bytes = max(1, int(layer.weights.size * self.bits / 8))
        return Packed(self, layer, max(1, -(-stream_bytes // weight_bytes)), weight_bytes)


_LITESPARK_TOKENS = 64  # its kernels take no more at once, and return without a result


def litespark() -> Native:
    """litespark-inference: AVX-512 VNNI or AVX2 for 2-bit weights with one scale, int8 activations per token.

    Raises:
        ImportError: it is not installed.
        OSError: its library cannot be loaded.
    """
    kernel = importlib.import_module("litespark_inference.torchless.kernel")
    packing = importlib.import_module("litespark_inference.torchless.pack")
    kernel.ensure_built()
    openmp = ctypes.CDLL("libgomp.so.1")

    def bind(rows: list[Rows], scale: Floats, x: Floats, threads: int) -> Bound:
        (tokens, k), level = x.shape, float(scale[0])
        made = [np.empty((tokens, len(row)), np.float32) for row in rows]
        codes, scales = np.empty((tokens, k), np.int8), np.empty(tokens, np.float32)

        parts = [slice(at, at + _LITESPARK_TOKENS) for at in range(0, tokens, _LITESPARK_TOKENS)]

        def one() -> None:
            for row, y in zip(rows, made, strict=True):
                quantum = kernel.quantize_activation(x[0], codes[0])
                kernel.matmul_packed_m1(codes[0], row, level, quantum, y[0])

        def many() -> None:
            for row, y in zip(rows, made, strict=True):
                kernel.quantize_activation_batched(x, codes, scales)
                for part in parts:
                    kernel.matmul_packed_mT(codes[part], scales[part], row, level, y[part])

        def call() -> None:
            openmp.omp_set_num_threads(threads)
            (one if tokens == 1 else many)()

        return Bound(call, made)

    about = f"litespark-inference {metadata.version('litespark-inference')}, its torchless kernels"
    return Native("litespark", about, 2e-2, 2, 4, lambda w, _: packing.pack_ternary_4_per_byte(w), bind)


_GGML_PACKAGES = ("llama-cpp-python", "pywhispercpp")
_TQ2_0, _F32 = 35, 0  # enum ggml_type
_NO_GRADIENTS = ctypes.c_bool()
_NODE_BYTES = 1024  # of a tensor and of its place in a graph, generously


class _InitParams(ctypes.Structure):
    _fields_: ClassVar = [
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    ]


def ggml() -> Native:
    """The library under llama.cpp, from a package that brings it: ``TQ2_0`` weights, ``Q8_K`` activations.

    Raises:
        ImportError: no package that brings it is installed.
        OSError: it cannot be loaded.
    """
    package, version, path = _find_ggml()
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    call = partial(_ggml_call, library)
    call("ggml_cpu_init", None)
    about = f"ggml of {package} {version}, TQ2_0 weights, Q8_K activations"
    return Native(
        "ggml", about, 2e-2, 8 * 66 / 256, 256, partial(_ggml_pack, call), partial(_ggml_bind, call)
    )


def _find_ggml() -> tuple[str, str, Path]:
    for package in _GGML_PACKAGES:
        try:
            files = metadata.files(package) or ()
        except metadata.PackageNotFoundError:
            continue
        found = [file for file in files if file.name.startswith("libggml-cpu") and ".so" in file.name]
        # a repaired wheel has copies beside its module, which miss their dependencies
        file = min(found, key=lambda file: not file.parts[0].endswith(".libs"), default=None)
        if file is not None:
            return package, metadata.version(package), Path(str(file.locate()))
    raise ImportError(f"none of {', '.join(_GGML_PACKAGES)} is installed")


def _ggml_call(library: ctypes.CDLL, name: str, result: type[Any] | None, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype = result
    return function(*arguments)


def _ggml_pack(call: Callable[..., Any], weights: NDArray[np.int8], scale: Floats) -> Rows:
    n, k = weights.shape
    dense = weights * scale
    rows = np.empty((n, call("ggml_row_size", ctypes.c_size_t, _TQ2_0, ctypes.c_int64(k))), np.uint8)
    source, target = (ctypes.c_void_p(array.ctypes.data) for array in (dense, rows))
    zero, count, width = (ctypes.c_int64(number) for number in (0, n, k))
    call("ggml_quantize_chunk", ctypes.c_size_t, _TQ2_0, source, target, zero, count, width, None)
    return rows


def _ggml_bind(call: Callable[..., Any], rows: list[Rows], _: Floats, x: Floats, threads: int) -> Bound:
    (tokens, k), n, pointer = x.shape, len(rows[0]), ctypes.c_void_p
    outputs = len(rows) * tokens * n * 4
    size = sum(row.nbytes for row in rows) + outputs + x.nbytes + (8 * len(rows) + 4096) * _NODE_BYTES
    context = pointer(call("ggml_init", pointer, _InitParams(size, None, 0)))

    def tensor(kind: int, columns: int, count: int, values: NDArray[Any]) -> ctypes.c_void_p:
        sizes = ctypes.c_int64(columns), ctypes.c_int64(count)
        made = pointer(call("ggml_new_tensor_2d", pointer, context, kind, *sizes))
        ctypes.memmove(call("ggml_get_data", pointer, made), values.ctypes.data, values.nbytes)
        return made

    tokens_in = tensor(_F32, k, tokens, x)
    room = ctypes.c_size_t(2 * len(rows) + 64)
    graph = pointer(call("ggml_new_graph_custom", pointer, context, room, _NO_GRADIENTS))
    made = []
    for row in rows:
        weights = tensor(_TQ2_0, k, n, row)
        y = pointer(call("ggml_mul_mat", pointer, context, weights, tokens_in))
        call("ggml_build_forward_expand", None, graph, y)
        data = call("ggml_get_data", pointer, y)
        floats = (ctypes.c_float * (tokens * n)).from_address(data)
        made.append(np.frombuffer(floats, np.float32).reshape(tokens, n))
    backend = pointer(call("ggml_backend_cpu_init", pointer))
    call("ggml_backend_cpu_set_n_threads", None, backend, threads)

    def compute() -> None:
        status = call("ggml_backend_graph_compute", ctypes.c_int, backend, graph)
        if status:
            raise RuntimeError(f"ggml_backend_graph_compute failed with status {status}")

    bound = Bound(compute, made)
    weakref.finalize(bound, call, "ggml_free", None, context)
    weakref.finalize(bound, call, "ggml_backend_free", None, backend)
    return bound
