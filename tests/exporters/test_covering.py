"""A covering array holds every pair of choices that may meet, and no case that may not."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from models.covering import Rule, covering_array

FACTORS = {"a": tuple("pqrst"), "b": tuple("123"), "c": (False, True), "d": tuple("wxyz"), "e": (7,)}
RULES = (
    Rule({"a": ("p", "q"), "b": ("1",)}, "two of a factor"),
    Rule({"a": ("r",), "c": (True,), "d": ("w", "x", "y")}, "three factors"),
)


@pytest.mark.parametrize("rules", [(), RULES], ids=["free", "ruled"])
def test_every_pair_that_may_meet_does(rules: tuple[Rule, ...]) -> None:
    cases = covering_array(FACTORS, rules)
    assert not any(rule.forbids(case) for rule in rules for case in cases)
    for first, second in combinations(FACTORS, 2):
        for a, b in product(FACTORS[first], FACTORS[second]):
            pair = {first: a, second: b}
            met = any(pair.items() <= case.items() for case in cases)
            assert met is not any(rule.forbids(pair) for rule in rules), pair


def test_it_is_small_and_always_the_same() -> None:
    cases = covering_array(FACTORS, RULES)
    assert cases == covering_array(FACTORS, RULES)
    assert len(cases) <= 24  # of 120


def test_a_choice_that_goes_with_nothing_is_an_error() -> None:
    rules = [Rule({"a": ("p",), "b": (level,)}, "never") for level in FACTORS["b"]]
    with pytest.raises(ValueError, match="no `b` goes with"):
        covering_array(FACTORS, rules)
