"""The op library of this machine, and the smallest measurements that show everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import bitcc
from bitcc.bench import op, results
from bitcc.bench.rounds import Pace

if TYPE_CHECKING:
    from pathlib import Path

ONE_ROUND = Pace(rounds=1, batch=1e-4, settle=0.0)
TINY = op.Plan(
    shapes=((48, 128), (33, 130)),
    kinds=((1, results.CACHED), (3, results.CACHED), (1, results.STREAMED)),
    threads=(1, 2),
    pace=ONE_ROUND,
    stream_bytes=40_000,
)


@pytest.fixture(scope="session")
def library() -> Path:
    return bitcc.library_path()


@pytest.fixture(scope="session")
def tiny(library: Path) -> results.OpBench:
    """All peers on two tiny shapes."""
    return op.run(library, TINY)


@pytest.fixture
def one_round() -> Pace:
    return ONE_ROUND


@pytest.fixture
def tiny_plan() -> op.Plan:
    return TINY
