"""The library as a file: what it exports and says, which variant it takes, what it does with memory."""

from __future__ import annotations

import _ctypes  # any library that certainly is there
import ctypes
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from bitcc import runtime, runtime_ops
from bitcc.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable

FAMILIES = [
    "absmax",
    "quantize",
    "quantize_divide",
    "gemv",
    "gemm_few",
    "unpack",
    "gemm",
    "finish",
    "finish_bias_first",
    "gemv_float",
    "gemv_t5",
    "gemm_few_t5",
    "unpack_t5",
    "pair",
    "gemm_pairs",
    "add_column",
    "repack_t5",
]
ZEN_5 = 0x1A  # family, as AMD counts
STATES = ["gemm_begin", "gemm_end"]
# A second name for the reference kernels that asks for a CPU of the future.
NUMBERS = "3, 4, 3, 2, 3, 8, 2, 1, 1, 3"
SCALAR = f"BITCC_VARIANT(scalar, 0, {NUMBERS})\n"
BEST = f"BITCC_VARIANT(best, 0, {NUMBERS})\n"
FUTURE = f"BITCC_VARIANT(future, (uint64_t)1 << 63, {NUMBERS})\n"
FUTURE_KERNELS = [f"-Dbitcc_{family}_future=bitcc_{family}_scalar" for family in FAMILIES + STATES]


@pytest.fixture(scope="session")
def future_library(build: Callable[..., Path]) -> Path:
    return build(*FUTURE_KERNELS, "-Wno-redundant-decls", variants=FUTURE + SCALAR)


def test_only_two_symbols_are_exported(library: Path) -> None:
    command = ["nm", "-D", "--defined-only", "--format=posix", str(library)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["RegisterCustomOps", "bitcc_library_info"]


def test_a_library_describes_itself(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BITCC_ISA", raising=False)
    info = runtime_ops.library_info(library)
    assert info.version == "1.2.3"
    assert info.weight_formats == {"t2": 1, "t5": 1}
    assert info.variants == ("scalar",)
    assert info.selected == "scalar"


def test_the_cpu_features_are_those_that_the_kernel_reports(library: Path) -> None:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    flags, family = set(text.split()), re.search(r"cpu family\s*: (\d+)", text)
    avx512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
    expected = []
    if {"avx2", "f16c", "fma"} <= flags:
        expected.append("avx2")
        if "avx_vnni" in flags:
            expected.append("avxvnni")
        if avx512 <= flags:
            expected.append("avx512vnni")
            if {"avx512vbmi", "gfni"} <= flags:
                expected.append("avx512vbmi")
        if "AuthenticAMD" in flags and family is not None and int(family[1]) >= ZEN_5:
            expected.append("zen5")
        if {"amx_tile", "amx_int8"} <= flags and may_use_tiles():
            expected.append("amxint8")
    assert list(runtime_ops.library_info(library).cpu) == expected


def may_use_tiles() -> bool:
    request_permission, tile_data = 0x1023, 18
    return ctypes.CDLL(None).syscall(158, request_permission, tile_data) == 0


def test_an_isa_can_be_forced(future_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for forced, selected in [("", "scalar"), ("scalar", "scalar"), ("future", None), ("x", None)]:
        monkeypatch.setenv("BITCC_ISA", forced)
        assert runtime_ops.library_info(future_library).selected == selected


@pytest.mark.parametrize(
    ("forced", "reason"), [("future", "cannot run on this CPU"), ("sse9", "is not in this library")]
)
def test_an_isa_that_cannot_be_forced_is_refused(
    future_library: Path, monkeypatch: pytest.MonkeyPatch, forced: str, reason: str
) -> None:
    monkeypatch.setenv("BITCC_ISA", forced)
    words = f"BITCC_ISA={forced} {reason}; this library has: future,scalar; of these this CPU can run: scalar"
    with pytest.raises(TargetError, match=words):
        runtime_ops.register(ort.SessionOptions(), future_library)


def test_a_library_without_a_variant_for_this_cpu_is_refused(
    build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BITCC_ISA", raising=False)
    path = build(*FUTURE_KERNELS, variants=FUTURE)
    assert runtime_ops.library_info(path).selected is None
    with pytest.raises(TargetError, match="no variant that runs on this CPU"):
        runtime_ops.register(ort.SessionOptions(), path)


def test_a_wrong_variant_makes_way_for_the_next_one(
    build: Callable[..., Path],
    layer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("BITCC_ISA", raising=False)
    others = [f for f in FAMILIES + STATES if f != "gemm"]
    renamed = [f"-Dbitcc_{family}_best=bitcc_{family}_scalar" for family in others]
    path = build(
        *renamed, "-DBITCC_WRONG_GEMM=bitcc_gemm_best", "-Wno-redundant-decls", variants=BEST + SCALAR
    )
    info = runtime_ops.library_info(path)
    assert (info.selected, info.wrong) == ("scalar", {"best": "gemm"})
    options = ort.SessionOptions()
    runtime_ops.register(options, path)
    said = "kernel `gemm` of ISA best computes wrong numbers on this machine and is not used; ISA scalar is"
    assert said in capfd.readouterr().err
    linear = layer(N=20, K=70)
    x = np.ones((30, 70), np.float32)
    opened = ort.InferenceSession(linear.model(x).SerializeToString(), options)
    np.testing.assert_array_equal(opened.run(None, {"X": x})[0], linear.expected(x))

    monkeypatch.setenv("BITCC_ISA", "best")
    info = runtime_ops.library_info(path)
    assert (info.selected, info.wrong) == (None, {"best": "gemm"})
    with pytest.raises(TargetError, match="kernel `gemm` of best computes wrong numbers on this machine"):
        runtime.check_kernels(info)
    with pytest.raises(TargetError, match="kernel `gemm` of ISA best computes wrong numbers"):
        runtime_ops.register(ort.SessionOptions(), path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_kernel_is_found_before_it_runs(build: Callable[..., Path], family: str) -> None:
    path = build(f"-DBITCC_BREAK={family}", variants=SCALAR)
    with pytest.raises(TargetError, match=f"kernel `{family}` of ISA scalar computes wrong numbers"):
        runtime_ops.register(ort.SessionOptions(), path)


def test_registering_again_changes_nothing(
    library: Path, future_library: Path, layer: Callable[..., Any]
) -> None:
    options = ort.SessionOptions()
    runtime_ops.register(options, library)
    runtime_ops.register(options, library)
    with pytest.raises(TargetError, match="is registered already") as raised:
        runtime_ops.register(options, future_library)
    assert raised.value.hint == "give each bundle SessionOptions of its own"
    model = layer(N=20, K=70).model(np.zeros((1, 70), np.float32))
    ort.InferenceSession(model.SerializeToString(), options)


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "libx.so"
    path.write_text("no library")
    with pytest.raises(TargetError, match="cannot be loaded"):
        runtime_ops.library_info(path)
    with pytest.raises(TargetError, match="onnxruntime refused it"):
        runtime_ops.register(ort.SessionOptions(), path)


def test_a_library_of_somebody_else_is_refused() -> None:
    with pytest.raises(TargetError, match="is not a library of bitcc"):
        runtime_ops.library_info(Path(_ctypes.__file__))


def test_a_library_of_an_older_bitcc_is_refused(tmp_path: Path) -> None:
    source, path = tmp_path / "old.c", tmp_path / "libold.so"
    source.write_text('const char *bitcc_library_info(void) { return "{}"; }')
    subprocess.run([sys.executable, "-m", "ziglang", "cc", "-shared", source, "-o", path], check=True)
    with pytest.raises(TargetError, match="was built by another bitcc"):
        runtime_ops.library_info(path)


@pytest.mark.parametrize("offset", [0, 1, 4096])
def test_external_weights_are_used_where_they_lie(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    tmp_path: Path,
    offset: int,
) -> None:
    linear = layer(N=2048, K=4096)
    x = rng.normal(size=(3, 4096)).astype(np.float32)
    model = linear.model(x)
    w = next(i for i in model.graph.initializer if i.name == "W")
    (tmp_path / "w.bin").write_bytes(bytes(offset) + w.raw_data)
    w.ClearField("raw_data")
    w.data_location = onnx.TensorProto.EXTERNAL
    for key, value in [("location", "w.bin"), ("offset", offset), ("length", 2048 * 4096 // 4)]:
        w.external_data.add(key=key, value=str(value))
    onnx.save(model, tmp_path / "m.onnx")
    opened = session(tmp_path / "m.onnx")
    np.testing.assert_array_equal(opened.run(None, {"X": x})[0], linear.expected(x))
    if sys.platform == "linux":
        assert resident_kib(tmp_path / "w.bin") >= 2048  # read through the mapping, not copied


def resident_kib(path: Path) -> int:
    """How much of a mapped file this process has in memory."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total
