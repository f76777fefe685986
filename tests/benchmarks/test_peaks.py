"""Where the threads of the yardsticks run."""

from __future__ import annotations

import os
import sys
from threading import Barrier

import pytest

from benchmarks import peaks
from bitcc.bench import cores

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
    found = cores.find()
    assert sorted(map(sorted, _where(len(found)))) == [[core] for core in found]


def test_more_threads_than_cores_run_anywhere() -> None:
    allowed = os.sched_getaffinity(0)
    assert _where(len(cores.find()) + 1) == [allowed] * (len(cores.find()) + 1)
