"""Activation codes that are clamped more than once: the narrowest bounds count."""

from __future__ import annotations

import models
import pytest

from bitcc.facts import PACKED

NESTED = {
    "twice behind the rounding": (
        "u = Round (v) t = Clip (u, low, qmax) codes = Clip (t, minus, fifty_)",
        -1,
        50,
    ),
    "the narrower one first": (
        "u = Round (v) t = Clip (u, minus, fifty_) codes = Clip (t, low, qmax)",
        -1,
        50,
    ),
    "on both sides of the rounding": (
        "t = Clip (v, low, fifty_) u = Round (t) codes = Clip (u, minus, qmax)",
        -1,
        50,
    ),
    "twice in front of it": (
        "t = Clip (v, low, qmax) s1 = Clip (t, minus, fifty_) codes = Round (s1)",
        -1,
        50,
    ),
    "one bound each": (
        "t = Max (v, low) u = Round (t) s1 = Min (u, qmax) n = Cast <to = 6> (s1) codes = Cast <to = 1> (n)",
        -128,
        127,
    ),
    "on both sides, and no whole number in front": (
        "t = Clip (v, low, middle) u = Round (t) codes = Clip (u, low, qmax)",
        -128,
        127,
    ),
}
OTHERS = {
    "bounds that cross": "t = Clip (v, fifty_, qmax) u = Round (t) codes = Clip (u, low, minus)",
    "a bound behind the rounding that is no whole number": (
        "t = Clip (v, low, qmax) u = Round (t) codes = Clip (u, half, qmax)"
    ),
    "something between the two": (
        "t = Clip (v, low, qmax) u = Round (t) s1 = Add (u, one) codes = Clip (s1, low, qmax)"
    ),
}
NUMBERS = "fifty_ = Constant <value_float = 50.0> () half = Constant <value_float = 0.5> () "


@pytest.mark.parametrize("name", NESTED)
def test_the_narrowest_bounds_count(name: str) -> None:
    rounded, low, high = NESTED[name]
    original = models.assemble(rounded=NUMBERS + rounded)
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    (node,) = models.bit_linears(models.assert_same(original))
    assert (models.attributes(node)["act_min"], models.attributes(node)["act_max"]) == (low, high)


@pytest.mark.parametrize("name", OTHERS)
def test_other_bounds_keep_the_quantizer(name: str) -> None:
    original = models.assemble(rounded=NUMBERS + OTHERS[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    models.assert_same(original)
