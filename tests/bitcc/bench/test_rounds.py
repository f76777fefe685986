"""The rounds: order, warming up, and what is made of the samples."""

from __future__ import annotations

import threading
import time
from functools import partial

from bitcc.bench import rounds
from bitcc.bench.rounds import Pace


def test_every_contender_runs_once_a_round_and_the_order_rotates() -> None:
    order: list[str] = []

    def call(name: str) -> None:
        order.append(name)
        time.sleep(0.001)

    calls = {name: partial(call, name) for name in "abc"}
    samples = rounds.interleave(calls, Pace(rounds=4, batch=1e-4, settle=0.0))
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab" + "abc"  # two calls each to size the batches
    assert all(len(found) == 4 and min(found) >= 0.001 for found in samples.values())


def test_short_calls_are_repeated_and_warmed_up() -> None:
    count = 0

    def call() -> None:
        nonlocal count
        count += 1

    [sample] = rounds.interleave({"short": call}, Pace(rounds=1, batch=1e-3, settle=0.0))["short"]
    assert count > 100
    assert 0 < sample < 1e-3


def test_nothing_to_run_gives_nothing() -> None:
    assert rounds.interleave({}, Pace(rounds=2)) == {}


def test_a_spread_is_quartiles_and_the_best() -> None:
    assert rounds.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == rounds.Spread(3.0, 2.0, 4.0, 1.0)


def test_a_ratio_pairs_the_samples_of_a_round() -> None:
    assert rounds.ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3.0


def test_a_batch_waits_for_threads_that_spin() -> None:
    end = time.perf_counter() + 0.1

    def spin() -> None:
        while time.perf_counter() < end:
            pass

    spinning = threading.Thread(target=spin)
    spinning.start()
    rounds.interleave({"a": lambda: None}, Pace(rounds=1, batch=1e-6, settle=0.02))
    assert time.perf_counter() >= end
    spinning.join()
