"""How far what two models computed is apart."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitcc.verify.outputs import distance, equal, flat

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("got", "want", "apart"),
    [
        ([1.0, -1000.0], [1.0, -1000.0], 0),
        ([1.5, -1000.0], [1.0, -1000.0], 5e-4),
        ([1e-6, 0.0], [0.0, 0.0], 1e-6),
        ([0.0, 0.0], [1e-6, 0.0], 1),
        ([NAN, INF, 2.0], [NAN, INF, 1.0], 1),
        ([NAN, 1.0], [1.0, 1.0], INF),
        ([1.0, 1.0], [INF, 1.0], INF),
        ([INF, 1.0], [-INF, 1.0], INF),
        ([NAN, 1.0], [INF, 1.0], INF),
        ([], [], 0),
        ([[1.0, 2.0]], [1.0, 2.0], INF),
        ([1, 2], [1, 2], 0),
        ([1, 2], [1, 3], INF),
        ([1, 2], [1.0, 2.0], INF),
        (["a"], ["b"], INF),
        (["a"], ["a"], 0),
    ],
)
def test_the_distance_is_relative_to_the_largest_value(got: object, want: object, apart: float) -> None:
    one, other = np.array(got), np.array(want)
    assert distance([one], [other]) == pytest.approx(apart)
    assert distance([other, one], [other, other]) == pytest.approx(apart)


def test_outputs_in_other_precision_are_compared() -> None:
    want = np.array([60000.0, 0.0], np.float32)
    assert distance([want.astype(np.float16)], [want]) == pytest.approx(0, abs=1e-3)
    assert distance([np.array([-60000.0, 0.0], np.float16)], [want.astype(np.float16)]) == pytest.approx(2)


def test_another_number_of_outputs_is_no_distance() -> None:
    array = np.ones(2)
    assert distance([array, array], [array]) == INF
    assert not equal([array, array], [array])


def test_the_same_bits_are_equal() -> None:
    one = np.array([1.0, NAN, INF])
    assert equal([one], [one.copy()])
    assert not equal([one], [one + 1])
    assert not equal([one], [one[:2]])
    assert equal([np.array(["a"])], [np.array(["a"])])
    assert not equal([np.array([1.0])], [np.array(["a"])])


def test_sequences_maps_and_missing_outputs_are_arrays() -> None:
    one, two = np.ones(2), np.zeros(3)
    found = flat([one, [one, two], [{"a": 1.0, "b": 2.0}], None, [1, 2]])
    want = [one, one, two, np.array(["a", "b"]), np.array([1.0, 2.0]), np.zeros(0), np.array([1, 2])]
    assert equal(found, want)
