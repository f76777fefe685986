"""What the machine can do at most: multiply-adds a second on registers alone, and bytes a second from memory.

A kernel is compared with these, taken in the same minutes: a shared machine is not equally fast at all times.
x86-64 on Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from bitcc.bench import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Call: TypeAlias = Callable[[], object]

LANES = {"amx": 16 * 16 * 64, "avx512vnni": 64, "avxvnni": 32, "avx2": 32}
"""Multiply-adds of the instruction that each variant is made of: tdpbsud, vpdpbusd, or vpmaddubsw."""

LIBRARY = "peaks.so"
# variants whose products are those of another one
_SAME = {"avx512zen": "avx512vnni", "avx512vbmi": "avx512vnni"}
_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = {"amx": "amx_int8", "avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni", "avx2": "avx2"}  # of Linux
_ROUNDS, _IN_A_ROUND = 50_000, 12  # a tenth of a millisecond
_STREAMS, _AHEAD = (1, 2, 4, 8), (0, 1024, 4096)
_BYTES, _CHUNK = 512 * 2**20, 2**20
_NOT_CACHED = 0.25  # of the chunks some may be in a cache


def variants() -> tuple[list[str], dict[str, str]]:
    """Those of `LANES` that can run here, and why the others cannot."""
    flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii").split())
    missing = {name: f"the CPU has no {flag}" for name, flag in _FLAGS.items() if flag not in flags}
    if "amx" not in missing and not _may_use_tiles():
        missing["amx"] = "Linux does not let this process use tiles"
    return [name for name in LANES if name not in missing], missing


def _may_use_tiles() -> bool:
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    refused: int = ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data)
    return refused == 0


def variant_of(isa: str) -> str | None:
    """Which of `LANES` the kernels of an ISA multiply with."""
    variant = _SAME.get(isa, isa)
    return variant if variant in LANES else None


def build(folder: Path) -> Path:
    """Compile the loops of ``peaks.c`` into ``folder``.

    Raises:
        OSError: they cannot be compiled, since ziglang is not installed.
    """
    out = folder / LIBRARY
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-gnu.2.17", "-O3", "-shared"]
    command += ["-fPIC", "-fno-sanitize=all", str(_SOURCE), "-o", str(out)]
    try:
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own command
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(f"peaks.c cannot be compiled: {lines[-1] if lines else error}") from error
    return out


@lru_cache(maxsize=1)
def load(prebuilt: Path | None = None) -> ctypes.CDLL:
    """The loops, from a folder where they were built before, or built now.

    Raises:
        OSError: there are none in the folder, they are not for this machine, or cannot be built.
    """
    if prebuilt is not None:
        return _open(prebuilt / LIBRARY)
    with tempfile.TemporaryDirectory(prefix="bitcc-peaks-") as name:
        return _open(build(Path(name)))


def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(os.fspath(path))
    for name in ("read_avx512vnni", "read_avx2"):
        function = getattr(library, name)
        function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
    return library


def pool(threads: int) -> ThreadPoolExecutor:
    """So many threads, on a core each if there are as many.

    Left to the scheduler, two threads that were asleep may run on one CPU for a while, and read half as fast.
    """
    free = cores.find()
    if threads > len(free):
        return ThreadPoolExecutor(threads)
    return ThreadPoolExecutor(threads, initializer=lambda: os.sched_setaffinity(0, {free.pop()}))


def rounds_for(variant: str, macs: int) -> int:
    """Of a loop ``peak_<variant>``, so many that they make that many multiply-adds, nearly."""
    return max(1, round(macs / (_IN_A_ROUND * LANES[variant])))


def reader(library: ctypes.CDLL, variant: str) -> Callable[[int, int, int, int], int]:
    """The loop with the widest vectors of a variant: address, bytes, bytes ahead, streams."""
    wide = variant in {"amx", "avx512vnni"}
    return cast(
        "Callable[[int, int, int, int], int]", getattr(library, "read_avx512vnni" if wide else "read_avx2")
    )


def multiply_adds(library: ctypes.CDLL, variant: str, threads: int) -> float:
    """Billions a second, of all threads together."""
    function = getattr(library, f"peak_{variant}")
    calls = [lambda: function(ctypes.c_int64(_ROUNDS))] * threads
    seconds = undisturbed(calls, repeats=200, quantile=0)
    return _ROUNDS * _IN_A_ROUND * LANES[variant] * threads / seconds / 1e9


def read(library: ctypes.CDLL, variant: str, threads: int, data: NDArray[np.uint8]) -> float:
    """Billions of bytes a second, by the fastest of several ways to read, chunk after chunk of ``data``."""
    function = reader(library, variant)
    starts = itertools.cycle(range(data.ctypes.data, data.ctypes.data + len(data) - _CHUNK + 1, _CHUNK))
    fastest = 0.0
    for streams, ahead in itertools.product(_STREAMS, _AHEAD):
        calls = [lambda s=streams, a=ahead: function(next(starts), _CHUNK, a, s)] * threads
        seconds = undisturbed(calls, repeats=len(data) // _CHUNK // threads, quantile=_NOT_CACHED)
        fastest = max(fastest, _CHUNK * threads / seconds / 1e9)
    return fastest


def undisturbed(calls: Sequence[Call], repeats: int, quantile: float) -> float:
    """Seconds of a call while all run, each again and again in a thread of its own; the slowest thread's."""
    with pool(len(calls)) as threads:
        times = threads.map(lambda call: [_once(call) for _ in range(repeats)], calls)
        return max(float(np.quantile(found, quantile)) for found in times)


def _once(call: Call) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    data = np.ones(_BYTES, np.uint8)
    present, missing = variants()
    library = load()
    rows = [
        {
            "variant": variant,
            "threads": threads,
            "gmac_per_s": round(multiply_adds(library, variant, threads), 1),
            "read_gb_per_s": round(read(library, variant, threads, data), 1),
        }
        for variant in present
        for threads in arguments.threads
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'variant':12}{'threads':>8}{'GMAC/s':>10}{'read GB/s':>12}")
    for row in rows:
        print(f"{row['variant']:12}{row['threads']:>8}{row['gmac_per_s']:>10}{row['read_gb_per_s']:>12}")
    for variant, reason in missing.items():
        print(f"{variant:12}not measurable here: {reason}")


if __name__ == "__main__":
    main()
