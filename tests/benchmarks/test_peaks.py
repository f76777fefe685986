"""Where the threads of the yardsticks run."""

from __future__ import annotations

import os
import sys
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from benchmarks import peaks

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="yardsticks are for Linux")


def _where(threads: int) -> list[set[int]]:
    """The CPUs that each thread of a pool may use, while all of them run."""
    together = Barrier(threads)

    def one(_: int) -> set[int]:
        together.wait()
        return os.sched_getaffinity(0)

    with peaks.pool(threads) as pool:
        return list(pool.map(one, range(threads)))


def test_each_thread_has_a_core() -> None:
    cores = peaks.cores()
    assert sorted(map(sorted, _where(len(cores)))) == [[core] for core in cores]


def test_more_threads_than_cores_run_anywhere() -> None:
    allowed = os.sched_getaffinity(0)
    assert _where(len(peaks.cores()) + 1) == [allowed] * (len(peaks.cores()) + 1)


def test_of_the_cpus_of_a_core_one_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0-1", "0-1", "2-3", "2-3"]):
        (tmp_path / str(cpu)).write_text(siblings)
    monkeypatch.setattr(peaks, "_SIBLINGS", f"{tmp_path}/{{}}")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 3, 4})
    assert peaks.cores() == [0, 3, 4]
