"""Covering arrays: few cases in which every two choices meet."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Case = dict[str, Any]
Choice = tuple[str, Any]
Pair = tuple[Choice, Choice]


@dataclass(frozen=True)
class Rule:
    """A combination that does not exist.

    Attributes:
        when: The choices that exclude each other, several for a factor if any of them does.
        reason: In words.
        error: What is said when it is tried; "" where nothing is.
    """

    when: Mapping[str, tuple[Any, ...]]
    reason: str
    error: str = ""

    def forbids(self, case: Case) -> bool:
        """Whether the case, which may lack factors, has all of the choices."""
        return all(factor in case and case[factor] in levels for factor, levels in self.when.items())


def covering_array(factors: Mapping[str, Sequence[Any]], rules: Sequence[Rule] = ()) -> list[Case]:
    """Cases with a choice for every factor, such that every pair of choices that may meet does.

    Greedy and without chance: a case begins with the first pair that is open, and each other factor takes the
    choice that closes most open pairs; of several, the one that was taken least often.

    Raises:
        ValueError: a pair that no rule forbids can not be completed.
    """
    open_pairs = dict.fromkeys(_pairs(factors, rules))
    taken: Counter[Choice] = Counter()
    cases = []
    while open_pairs:
        case = dict(next(iter(open_pairs)))
        for factor, levels in factors.items():
            allowed = [level for level in levels if not _forbidden({**case, factor: level}, rules)]
            if factor not in case and not allowed:
                raise ValueError(f"no `{factor}` goes with {case}")
            if factor not in case:
                choices = [(factor, level) for level in allowed]
                case.update([max(choices, key=lambda c: (_closed(case, c, open_pairs), -taken[c]))])
        cases.append({factor: case[factor] for factor in factors})
        taken.update(cases[-1].items())
        for pair in combinations(cases[-1].items(), 2):
            open_pairs.pop(pair, None)
    return cases


def _closed(case: Case, choice: Choice, open_pairs: Mapping[Pair, None]) -> int:
    return sum((other, choice) in open_pairs or (choice, other) in open_pairs for other in case.items())


def _forbidden(case: Case, rules: Sequence[Rule]) -> bool:
    return any(rule.forbids(case) for rule in rules)


def _pairs(factors: Mapping[str, Sequence[Any]], rules: Sequence[Rule]) -> Iterator[Pair]:
    for first, second in combinations(factors, 2):
        for a, b in product(factors[first], factors[second]):
            if not _forbidden({first: a, second: b}, rules):
                yield (first, a), (second, b)
