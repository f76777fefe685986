"""The rounds: order, warming up, and what is made of the samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest

from bitcc.bench import rounds
from bitcc.bench.rounds import Pace


@dataclass
class Clock:
    """Seconds that pass only when something is done.

    Attributes:
        now: The time.
        busy: The processor time of this process, whose threads run until ``idle``.
        idle: From when on it does not run any more of itself.
    """

    now: float = 0.0
    busy: float = 0.0
    idle: float = 0.0

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.busy += seconds

    def sleep(self, seconds: float) -> None:
        self.busy += min(seconds, max(0.0, self.idle - self.now))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rounds, "perf_counter", lambda: made.now)
    monkeypatch.setattr(rounds, "process_time", lambda: made.busy)
    monkeypatch.setattr(rounds, "sleep", made.sleep)
    return made


def test_every_contender_runs_once_a_round_and_the_order_rotates(clock: Clock) -> None:
    order: list[str] = []

    def call(name: str) -> None:
        order.append(name)
        clock.work(0.001)

    calls = {name: partial(call, name) for name in "abc"}
    samples = rounds.interleave(calls, Pace(rounds=4, batch=1e-4, settle=0.0))
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab" + "abc"  # two calls each to size the batches
    assert all(found == [pytest.approx(0.001)] * 4 for found in samples.values())


def test_short_calls_are_repeated_and_warmed_up(clock: Clock) -> None:
    count = 0

    def call() -> None:
        nonlocal count
        count += 1
        clock.work(1e-5)

    [sample] = rounds.interleave({"short": call}, Pace(rounds=1, batch=1e-3, settle=0.0))["short"]
    assert count == 2 + 25 + 100  # to size the batch, to warm up, and the batch
    assert sample == pytest.approx(1e-5)


def test_nothing_to_run_gives_nothing() -> None:
    assert rounds.interleave({}, Pace(rounds=2)) == {}


def test_a_spread_is_quartiles_and_the_best() -> None:
    assert rounds.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == rounds.Spread(3.0, 2.0, 4.0, 1.0)


def test_a_ratio_pairs_the_samples_of_a_round() -> None:
    assert rounds.ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3.0


@pytest.mark.parametrize(("idle", "begins"), [(0.0, 0.02), (0.1, 0.12), (9.0, 0.5)])
def test_a_batch_waits_for_threads_that_spin_but_not_for_ever(
    clock: Clock, idle: float, begins: float
) -> None:
    began: list[float] = []
    clock.idle = idle
    rounds.interleave({"a": lambda: began.append(clock.now)}, Pace(rounds=1, batch=1e-9, settle=0.02))
    assert began[-1] == pytest.approx(begins)
