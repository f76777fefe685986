"""The CUDA op of the library between a fake onnxruntime and a fake driver, on emulated kernels."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from bitcc import formats, ops, runtime_ops

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from bitcc.targets._cuda import Kernel

    Array = NDArray[Any]

TYPES = {1: np.dtype(np.float32), 10: np.dtype(np.float16), 16: np.dtype(ml_dtypes.bfloat16)}
CPU_OPS, ALL_OPS = 6, 9
STREAM = 0x51
IMAGES = {"sm_75": (75, 0), "compute_90": (90, 1), "sm_86": (86, 0), "sm_80": (80, 0)}
BAND_BYTES = 1 << 16

_HERE = Path(__file__).parent
_HOST = _HERE.parent / "runtime_ops" / "host"
_SRC = runtime_ops.include_dir().parent / "src"
_FLAGS = ("-std=gnu11", "-O2", "-g", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wconversion", "-Werror")
_ERROR_BYTES = 1024


class _Shape(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("rank", ctypes.c_size_t), ("dims", ctypes.c_int64 * 40))


class _Value(ctypes.Structure):
    """`OrtValue` of host.h."""

    _fields_ = (
        ("info", _Shape),
        ("block", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
    )


class _Attribute(ctypes.Structure):
    """`OrtOpAttr`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("kind", ctypes.c_char),
        ("i", ctypes.c_int64),
        ("f", ctypes.c_float),
        ("s", ctypes.c_char * 80),
    )


class _Info(ctypes.Structure):
    """`OrtKernelInfo`."""

    _fields_ = (
        ("attributes", _Attribute * 16),
        ("inputs", ctypes.POINTER(_Value) * 5),
        ("constant", ctypes.c_bool * 5),
    )


class LauncherError(Exception):
    """What a status says."""


class Driver:
    """The fake driver; `set` and `get` are about the variables called `fake_...` in cuda_driver.c."""

    def __init__(self, path: Path, emulated: ctypes.CDLL, kernels: Sequence[Kernel]) -> None:
        self.library = ctypes.CDLL(os.fspath(path))
        for kernel in kernels:
            run = ctypes.cast(getattr(emulated, f"run_{kernel.symbol}"), ctypes.c_void_p)
            self.library.fake_set_kernel(kernel.symbol.encode(), run)

    def get(self, name: str) -> int:
        """A number."""
        return int(ctypes.c_long.in_dll(self.library, f"fake_{name}").value)

    def set(self, **values: int) -> None:
        """Numbers."""
        for name, value in values.items():
            ctypes.c_long.in_dll(self.library, f"fake_{name}").value = value

    def reset(self) -> None:
        """As it was at first."""
        self.set(capability=90, has_pools=1, processors=1, order=0, until_fault=-1)
        self.library.fake_make_current(0)
        self.take_launches()

    def is_clean(self) -> bool:
        """Whether nothing lives, and nothing was done that may not be done."""
        return not any(map(self.get, ("live", "depth", "violations")))

    @contextmanager
    def broken(self, kernel: str) -> Iterator[None]:
        """A kernel does nothing."""
        name = ctypes.c_char_p.in_dll(self.library, "fake_broken")
        name.value = kernel.encode()
        try:
            yield
        finally:
            name.value = None

    @property
    def loaded(self) -> str:
        """The image that was loaded last."""
        return (ctypes.c_char * 64).in_dll(self.library, "fake_loaded").value.decode()

    def take_launches(self) -> list[tuple[str, int]]:
        """The kernels that ran since the last time, and their streams."""
        log = (ctypes.c_char * (1 << 16)).in_dll(self.library, "fake_launched")
        lines = [line.split() for line in log.value.decode().splitlines()]
        log.value = b""
        return [(name, int(stream)) for name, stream in lines]

    def upload(self, array: Array) -> int:
        """A copy in new device memory."""
        address = ctypes.c_uint64()
        size = ctypes.c_size_t(max(array.nbytes, 1))
        _check(self.library.fake_new_block(ctypes.byref(address), size))
        _check(self.library.fake_copy(address, array.tobytes(), ctypes.c_size_t(array.nbytes), 1))
        return address.value

    def download(self, address: int, size: int) -> bytes:
        """What is there when the stream of the op is done."""
        out = ctypes.create_string_buffer(size)
        _check(self.synchronize())
        _check(self.library.fake_copy(ctypes.c_uint64(address), out, ctypes.c_size_t(size), 0))
        return out.raw

    def synchronize(self) -> int:
        """Wait for the stream of the op; what went wrong in it."""
        return int(self.library.cuStreamSynchronize(ctypes.c_void_p(STREAM)))

    def free(self, address: int) -> None:
        """Give device memory back."""
        _check(self.library.cuMemFree_v2(ctypes.c_uint64(address)))


def _check(result: int) -> None:
    if result:
        raise AssertionError(f"CUDA error {result}")


class Node:
    """A node that was created; `close` destroys it."""

    def __init__(self, launcher: Launcher, number: int, kernel: int, info: _Info) -> None:
        self._launcher, self._number, self._kernel, self._info = launcher, number, kernel, info

    def run(self, x: Array, fail_at: int = -1, *, on_host: bool = False) -> Array:
        """Y.

        Args:
            x: X, to be copied to the GPU.
            fail_at: The call of the driver that fails.
            on_host: X stays with the host, where it must not be.

        Raises:
            LauncherError: the op returned an error.
        """
        driver = self._launcher.driver
        is_cuda = self._number >= CPU_OPS
        held = np.ascontiguousarray(x)
        copy = driver.upload(held) if is_cuda else 0
        address = held.ctypes.data if on_host else copy or held.ctypes.data
        driver.set(until_fault=fail_at)
        failed, data, size = self._compute(_value(held, address), STREAM if is_cuda else None)
        driver.set(until_fault=-1)
        finished = driver.synchronize()
        content = b""
        if size and not failed:
            content = driver.download(data, size) if is_cuda else ctypes.string_at(data, size)
        if is_cuda:
            for block in filter(None, (copy, data)):
                driver.free(block)
        else:
            self._launcher.host.host_free(ctypes.c_void_p(data))
        if failed:
            raise LauncherError(failed)
        _check(finished)
        return np.frombuffer(content, x.dtype).reshape(*x.shape[:-1], self._info.keep["n"])

    def _compute(self, x: _Value, stream: int | None) -> tuple[str, int, int]:
        inputs = (ctypes.POINTER(_Value) * 5)(*self._info.inputs)
        inputs[0] = ctypes.pointer(x)
        data, size, error = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.create_string_buffer(_ERROR_BYTES)
        failed = self._launcher.host.host_compute(
            self._number, ctypes.c_void_p(self._kernel), inputs, ctypes.c_void_p(stream),
            ctypes.byref(data), ctypes.byref(size), error,
        )  # fmt: skip
        return error.value.decode() if failed else "", data.value or 0, size.value

    def close(self) -> None:
        """Destroy it."""
        self._launcher.host.host_destroy(self._number, ctypes.c_void_p(self._kernel))


class Launcher:
    """A library as `build_library` makes it, which is its own onnxruntime too."""

    Error = LauncherError
    stream = STREAM

    def __init__(self, path: Path, driver: Driver | None = None) -> None:
        self.path = path
        self.host = ctypes.CDLL(os.fspath(path))
        self.host.host_create.restype = ctypes.c_void_p
        self.host.host_provider.restype = ctypes.c_char_p
        if driver is not None:
            self.driver = driver
            self.host.host_set_allocate(ctypes.cast(driver.library.fake_new_block, ctypes.c_void_p))

    def register(self) -> int:
        """How many ops there are.

        Raises:
            LauncherError: the library refused.
        """
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        count = int(self.host.host_register(error))
        if count < 0:
            raise LauncherError(error.value.decode())
        return count

    def create(
        self, op: ops.BitLinear, inputs: Mapping[str, Array], element: int = 1, *, cpu: bool = False,
        constant: bool = True, attributes: Mapping[str, Any] | None = None,
    ) -> Node:  # fmt: skip
        """A node of the CUDA op, or of the CPU op beside it.

        Raises:
            LauncherError: the op refused it.
        """
        info = _Info()
        merged = {**op.attributes(), **(attributes or {})}
        for slot, (name, value) in zip(info.attributes, merged.items(), strict=False):
            slot.name, slot.kind = name.encode(), type(value).__name__[:1].encode()
            field = {"int": "i", "float": "f", "str": "s"}[type(value).__name__]
            setattr(slot, field, value.encode() if isinstance(value, str) else value)
        for i, name in enumerate(("W", "w_scale", "bias", "gain"), 1):
            info.inputs[i] = ctypes.pointer(_value(inputs[name], inputs[name].ctypes.data))
            info.constant[i] = constant
        number = list(TYPES).index(element) + (0 if cpu else CPU_OPS)
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        kernel = self.host.host_create(number, ctypes.byref(info), error)
        if kernel is None:
            raise LauncherError(error.value.decode())
        info.keep = {"n": op.N, "inputs": inputs}
        return Node(self, number, kernel, info)


def _value(array: Array, address: int) -> _Value:
    uint8 = 2
    value = _Value()
    value.info.type = next((number for number, dtype in TYPES.items() if dtype == array.dtype), uint8)
    value.info.rank = array.ndim
    value.info.dims[: array.ndim] = array.shape
    value.data, value.bytes = address, array.nbytes
    return value


def inputs_of(op: ops.BitLinear, rng: np.random.Generator, *, per_row: bool = True) -> dict[str, Array]:
    """Random weights."""
    rows = op.N if per_row else 1
    weights = rng.integers(-1, 2, (op.N, op.K)).astype(np.int8)
    gain = rng.uniform(0.5, 2, op.K if per_row else 1).astype(np.float32)
    return {
        "W": formats.get(op.weight_format, op.layout_version).pack(weights),
        "w_scale": rng.uniform(0.01, 2, rows).astype(np.float32),
        "bias": rng.normal(0, 3, rows).astype(np.float32),
        "gain": ops.ONE if op.norm is ops.Norm.NONE else gain,
    }


def expected(op: ops.BitLinear, inputs: Mapping[str, Array], x: Array) -> Array:
    """What the numpy spec of the op says."""
    return ops.reference(x, inputs["W"], inputs["w_scale"], inputs["bias"], op, gain=inputs["gain"])


def build_driver(folder: Path, kernels: Sequence[Kernel]) -> Path:
    """Once it is loaded, `dlopen` of libcuda.so.1 finds it by its name."""
    (folder / "kernels.inc").write_text(_kernel_table(kernels), encoding="ascii")
    return _compile(folder / "libcuda.so.1", [_HERE / "cuda_driver.c"], [folder], "-Wl,-soname,libcuda.so.1")


def build_launcher(folder: Path, kernels: Sequence[Kernel]) -> Path:
    """The library for GPUs with `IMAGES`, and in small bands of tokens."""
    images = "".join(f"BITCC_CUDA_IMAGE({c}, {ptx}, bitcc_{name})\n" for name, (c, ptx) in IMAGES.items())
    lines = "".join(
        f"BITCC_CUDA_KERNEL({k.family}, {k.element.name}, {k.threads}, {k.rows}, {k.tokens})\n"
        for k in kernels
    )
    (folder / "cuda.inc").write_text(images + lines, encoding="ascii")
    variant = "BITCC_VARIANT(scalar, 0, 3, 4, 3, 2, 3, 8, 2, 1, 0, 1)\n"
    (folder / "variants.inc").write_text(variant, encoding="ascii")
    sources = [*runtime_ops.sources(cuda=True), _HOST.parent / "reference_kernels.c"]
    sources += [*(_HOST / name for name in ("api.c", "memory.c", "models.c"))]
    sources += [_HERE / "cuda_host.c", _HERE / "cuda_images.S"]
    defines = ("-DBITCC_CUDA", '-DBITCC_VERSION="1.2.3"', f"-DBITCC_GPU_BAND_BYTES={BAND_BYTES}")
    checked = ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
    more = (*checked, "-ffp-contract=off", "-Wl,--wrap=malloc,--wrap=calloc", "-ldl", "-lpthread", "-lm")
    return _compile(folder / "launcher.so", sources, [folder, _SRC, _HOST], *defines, *more)


def _kernel_table(kernels: Sequence[Kernel]) -> str:
    """How the fake driver calls each kernel."""
    calls, entries = "", ""
    for kernel in kernels:
        kinds = list(kernel.parameters.values())
        types = ["void *" if "*" in kind else {"int32": "int", "float32": "float"}[kind] for kind in kinds]
        reads = {"void *": "POINTER", "int": "INT", "float": "FLOAT"}
        values = ", ".join(f"a{i}" for i in range(len(kinds)))
        declared = "".join(f"  {kind} a{i} = {reads[kind]}({i});\n" for i, kind in enumerate(types))
        calls += (
            f"static int call_{kernel.symbol}(any_function run, const unsigned *grid, void **arguments) {{\n"
            f"{declared}  if (run == NULL) return 0;\n"
            f"  return ((int (*)(int, int, int, int, int, {', '.join(types)}))run)"
            f"((int)grid[0], (int)grid[1], (int)grid[2], (int)fake_order, -1, {values});\n}}\n"
        )
        sizes = ", ".join("8" if "*" in kind else "4" for kind in kinds)
        entries += f'  {{"{kernel.symbol}", NULL, call_{kernel.symbol}, {len(kinds)}, {{{sizes}}}}},\n'
    return f"{calls}static struct CUfunc_st kernels[] = {{\n{entries}}};\n"


def _compile(out: Path, sources: list[Path], includes: list[Path], *flags: str) -> Path:
    paths = [f"-I{path}" for path in (runtime_ops.include_dir(), *includes)]
    command = ["cc", *_FLAGS, *paths, *map(str, sources), *flags, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out
