"""On what the measurements were made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import onnxruntime as ort

from bitcc import host, runtime_ops
from bitcc.version import __version__

_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Machine:
    """What ran.

    Attributes:
        cpu: Its name.
        cores: How many this process may use.
        isa: The variant of the op library that runs here, ``BITCC_ISA`` respected.
        bitcc: Version of bitcc.
        onnxruntime: Version of onnxruntime.
        load: Processes that were running or waiting when the benchmark began, averaged over a minute;
            None where the system does not say.
        gpu: Its name, if layers ran on one.
    """

    cpu: str
    cores: int
    isa: str
    bitcc: str
    onnxruntime: str
    load: float | None
    gpu: str = ""


def describe(library: Path | None) -> Machine:
    """This machine, with the op library that runs; None if none does."""
    isa = runtime_ops.library_info(library).selected if library else None
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(host.cpu_name(), cores, isa or "none", __version__, ort.__version__, load)


class Others:
    """How much of the machine other processes, and other guests of its host, take from now on."""

    def __init__(self) -> None:
        self._wall, self._busy = perf_counter(), _busy_elsewhere()

    def share(self) -> float | None:
        """Of all cores, 0 to 1; None where the system does not say."""
        busy = _busy_elsewhere()
        if busy is None or self._busy is None:
            return None
        seconds = (perf_counter() - self._wall) * (os.cpu_count() or 1)
        return round(min(1.0, max(0.0, (busy - self._busy) / seconds)), 3)


def _busy_elsewhere() -> float | None:
    """Core seconds since the start of the system that were neither idle nor ours."""
    if not _STAT.is_file():
        return None
    user, nice, system, _idle, _wait, irq, soft_irq, steal = map(int, _STAT.read_text().split()[1:9])
    busy = user + nice + system + irq + soft_irq + steal
    return busy / os.sysconf("SC_CLK_TCK") - process_time()
