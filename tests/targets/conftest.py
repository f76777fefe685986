"""The kernels of every variant, called from numpy through the table of a stub library."""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from emulation import amx

from bitcc import targets
from bitcc.targets import _x86_avx512vnni, _x86_avxvnni

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bitcc.targets import Variant

    Array = NDArray[Any]

TARGET = targets.get("x86-64")
# The kernels of AVX-VNNI where there is only AVX512-VNNI: the same instructions in another encoding.
EVEX = replace(
    TARGET,
    variants=(
        replace(
            _x86_avxvnni.VARIANT,
            name="avxvnni_evex",
            features=_x86_avx512vnni.VARIANT.features,
            mattr=_x86_avx512vnni.VARIANT.mattr,
        ),
    ),
)
_WALK = targets.Walk(2, unroll=2, prefetch=1024, chains=2)
# Walks with chains, which the variants themselves may not have.
CHAINED = replace(
    TARGET,
    variants=(
        *(
            replace(
                variant,
                name=f"{variant.name}_chained",
                tiles=replace(variant.tiles, gemv=_WALK, gemv_t5=targets.Walk(2, prefetch=1024, chains=3)),
            )
            for variant in TARGET.variants
            if variant.name in {"avx512vbmi", "scalar"}
        ),
    ),
)
RUNTIME_OPS = Path(__file__).parents[2] / "runtime_ops"
SOURCES = [Path(__file__).parent / "stub.c", RUNTIME_OPS / "src" / "variants.c"]
INCLUDE = RUNTIME_OPS / "include"
AMX = "BITCC_CPU_AVX512VNNI | BITCC_CPU_AVX512VBMI | BITCC_CPU_AMXINT8"
_AVX512VNNI = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
CPU_FLAGS = {  # what Linux calls the features of kernel.h
    "0": set[str](),
    "BITCC_CPU_AVX2": {"avx2", "f16c", "fma"},
    "BITCC_CPU_AVX2 | BITCC_CPU_AVXVNNI": {"avx2", "f16c", "fma", "avx_vnni"},
    "BITCC_CPU_AVX512VNNI": _AVX512VNNI,
    "BITCC_CPU_AVX512VNNI | BITCC_CPU_AVX512VBMI": _AVX512VNNI | {"avx512vbmi", "gfni"},
}
_VBMI = "BITCC_CPU_AVX512VNNI | BITCC_CPU_AVX512VBMI"
CPU_FLAGS[f"{_VBMI} | BITCC_CPU_ZEN5"] = CPU_FLAGS[_VBMI]  # others can run what is made for it
CPU_FLAGS[AMX] = _AVX512VNNI | {"avx512vbmi", "gfni", "amx_tile", "amx_int8"}

_PAGE = mmap.PAGESIZE
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int32
_ARGUMENTS = {
    "absmax": (_POINTER, _POINTER, _INT, _INT),
    "quantize": (_POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _INT, _INT),
    "quantize_divide": (_POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _INT, _INT),
    "gemv": (_POINTER, _POINTER, _POINTER, _INT, _INT, _INT),
    "gemm_few": (_POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _INT),
    "unpack": (_POINTER, _POINTER, _INT, _INT, _INT),
    "gemm": (_POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _INT),
    "finish": (*[_POINTER] * 6, *[_INT] * 4),
    "finish_bias_first": (*[_POINTER] * 6, *[_INT] * 4),
    "gemv_float": (_POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _INT, _INT),
    "gemm_begin": (_POINTER,),
    "gemm_end": (_POINTER,),
    "gemv_t5": (_POINTER, _POINTER, _POINTER, _INT, _INT, _INT),
    "gemm_few_t5": (_POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _INT, _INT),
    "unpack_t5": (_POINTER, _POINTER, _INT, _INT, _INT, _INT),
    "pair": (_POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT, _INT),
    "gemm_pairs": (_POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _INT),
    "add_column": (_POINTER, _POINTER, _INT, _INT, _INT, _INT),
    "repack_t5": (_POINTER, _POINTER, _INT, _INT, _INT, _INT),
}


class Row(ctypes.Structure):
    """`bitcc_kernels` of kernel.h."""

    _fields_ = (
        ("isa", ctypes.c_char_p),
        ("cpu", ctypes.c_uint64),
        ("few_tokens", ctypes.c_int32),
        ("gemm_tokens", ctypes.c_int32),
        ("float_tiles", ctypes.c_int32),
        ("gemm_unit", ctypes.c_int32),
        ("panel_tiles", ctypes.c_int32),
        ("panel_vectors", ctypes.c_int32),
        ("few_blocks", ctypes.c_int32),
        ("pair_tokens", ctypes.c_int32),
        *((family, ctypes.c_void_p) for family in _ARGUMENTS),
    )


class Buffer:
    """Bytes that end `gap` bytes before a page that cannot be read or written."""

    def __init__(self, content: Array, gap: int) -> None:
        self._size, self._gap = content.nbytes, gap
        pages = -(-(self._size + gap) // _PAGE)
        self._memory = mmap.mmap(-1, (pages + 1) * _PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._offset = pages * _PAGE - gap - self._size
        self.address = start + self._offset
        self._memory[self._offset : self._offset + self._size] = content.tobytes()
        no_access = 0
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(start + pages * _PAGE), _PAGE, no_access) == 0

    def read(self, dtype: str) -> Array:
        """What is in it now; nothing around it may have been written."""
        end = self._offset + self._size
        assert not any(self._memory[: self._offset])
        assert not any(self._memory[end : end + self._gap])
        return np.frombuffer(self._memory[self._offset : end], dtype)


@dataclass(frozen=True)
class Kernels:
    """The kernels of one variant on arrays, `gap` bytes before a guard page."""

    variant: Variant
    row: Row
    fault: Callable[[], bytes | None]

    def call(self, family: str, gap: int, *arguments: Array | int) -> list[Buffer]:
        """Call a kernel; the buffers of the arrays come back in order."""
        function = ctypes.CFUNCTYPE(None, *_ARGUMENTS[family])(getattr(self.row, family))
        buffers = [Buffer(a, gap) for a in arguments if isinstance(a, np.ndarray)]
        rest = iter(buffers)
        function(*(next(rest).address if isinstance(a, np.ndarray) else a for a in arguments))
        assert self.fault() is None
        return buffers


@pytest.fixture(scope="session")
def buffer() -> type[Buffer]:
    """For tests that put arrays before a guard page themselves."""
    return Buffer


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all of these tests, where other tests find nothing and leave nothing."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cache(cache_folder: Path) -> Iterator[Path]:
    """The cache folder, which is set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITCC_CACHE_DIR", str(cache_folder))
        yield cache_folder


@pytest.fixture(scope="module")
def build(cache: Path) -> Callable[..., Path]:
    """Builds the stub library."""
    assert cache.is_dir()

    def stub_library(target: targets.Target = TARGET, version: str = "1", **more: Any) -> Path:
        sources = [*SOURCES, amx.SOURCE] if target is amx.EMULATED else SOURCES
        return targets.build_library(target, sources=sources, include=INCLUDE, version=version, **more)

    return stub_library


VARIANTS = [
    (target, variant) for target in (TARGET, EVEX, CHAINED, amx.EMULATED) for variant in target.variants
]


def _each(is_wanted: Callable[[targets.Variant], bool]) -> Any:
    """A fixture for each such variant."""
    wanted = [pair for pair in VARIANTS if is_wanted(pair[1])]
    return pytest.fixture(scope="module", params=wanted, ids=lambda pair: pair[1].name)


@_each(lambda _: True)
def kernels(request: pytest.FixtureRequest, build: Callable[..., Path]) -> Kernels:
    """The kernels of each variant that this CPU can run."""
    return _load(*request.param, build)


@_each(lambda variant: variant.kernels.reads_t5)
def t5_kernels(request: pytest.FixtureRequest, build: Callable[..., Path]) -> Kernels:
    """The same of those that read weights in layout `t5`."""
    return _load(*request.param, build)


@_each(lambda variant: variant.kernels.has_pairs)
def pair_kernels(request: pytest.FixtureRequest, build: Callable[..., Path]) -> Kernels:
    """The same of those with products of pairs."""
    return _load(*request.param, build)


def _load(target: targets.Target, variant: Variant, build: Callable[..., Path]) -> Kernels:
    missing = CPU_FLAGS[variant.features] - _cpu_flags()
    if missing:
        pytest.skip(f"the CPU has no {', '.join(sorted(missing))}")
    if variant.features == AMX and not _may_use_tiles():
        pytest.skip("Linux does not let this process use AMX")
    library = ctypes.CDLL(os.fspath(build(target)))
    table = ctypes.POINTER(Row).in_dll(library, "stub_variants")
    (row,) = (row for row in table[: len(target.variants)] if row.isa == variant.name.encode())
    fault = getattr(library, "emulated_fault", lambda: None)
    if target is amx.EMULATED:
        fault.restype = ctypes.c_char_p
    return Kernels(variant, row, fault)


def _may_use_tiles() -> bool:
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0


def _cpu_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    return set(next(line for line in lines if line.startswith("flags")).split())
