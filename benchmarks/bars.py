"""What the kernels are to reach, and whether a measurement shows it.

Figures are medians over the rounds of one run: of times divided by ours in the same round. "Least" is
the worst of all layers. Only what was measured has a bar.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from statistics import geometric_mean, median
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.yardsticks import PEAK, READ
from bitcc.bench.results import CACHED, STREAMED
from bitcc.passes.weight_format import BEYOND_CORES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Data: TypeAlias = dict[str, Any]
    Layer: TypeAlias = tuple[int, int, int]  # N, K and tokens

_FORMATS = {"bitcc": "t2", "t5": "t5"}  # contenders that are ours
_AUTO = "auto"
_STOCK = ("float32", "nbits", "nbits4", "int8")  # of onnxruntime
_ONE, _MANY = 1, 128  # tokens
_MEAN, _LEAST = 2.0, 1.3  # times as fast as MatMulNBits; as the best of onnxruntime
_WITH_AMX = {"nbits": 8.0, "int8": 2.0}  # times as fast as these, with many tokens
_WITH_AVX512 = {"nbits": 2.0}  # which MatMulNBits uses, whatever kernels of ours are forced
_NAMES = {"nbits": "MatMulNBits 2 bits", "int8": "DynamicQuantizeLinear + MatMulInteger"}
_READ = 0.8  # of the bandwidth
# of the instruction
_PEAK = {"avx512zen": 0.55, "avx512vbmi": 0.55, "avx512vnni": 0.55, "avx2": 0.5, "amx": 0.4}
_NOISE = 1.03
_SMALLEST = 64  # N and K from which a float MatMul must not be faster


@dataclass(frozen=True)
class Bar:
    """One of them.

    Attributes:
        name: What is measured.
        figure: What was found.
        wanted: What is to be reached.
        holds: Whether it is; None where nothing is wanted.
    """

    name: str
    figure: str
    wanted: str
    holds: bool | None


def find(result: Data) -> list[Bar]:
    """All bars that the result of the op suite can tell of."""
    found = []
    for title, part in result["parts"].items():
        for threads, group in itertools.groupby(sorted(part["cases"], key=_threads), key=_threads):
            cases, isa = list(group), part["machine"]["isa"]
            large = itertools.chain(_one(cases), _few(cases), _many(cases, isa))
            bars: Iterator[Bar] = large if title == "layers" else _odd(cases)
            suffix = f", {threads} thread{'s' * (threads > 1)}"
            found += [replace(bar, name=bar.name + suffix) for bar in bars]
    return found


def _one(cases: list[Data]) -> Iterator[Bar]:
    """One token of a large model, from memory, and of a model that is the layer alone, from a cache."""
    for regime in (STREAMED, CACHED):
        chosen = [c for c in cases if _kind(c) == (_ONE, regime)]
        times = {name: _ratios(chosen, "nbits", ours) for ours, name in _FORMATS.items()}
        for name, ratios in (times | {_AUTO: _as_auto(times, regime)}).items():
            if ratios:
                reached = geometric_mean(ratios.values()) >= _MEAN and min(ratios.values()) >= _LEAST
                yield Bar(
                    f"1 token, {regime}, {name}: MatMulNBits 2 bits over ours",
                    _mean_and_least(ratios),
                    f"{_MEAN} x, least {_LEAST} x" if name == _AUTO else "",
                    reached if name == _AUTO else None,
                )
        for ours, name in _FORMATS.items():
            shares = _ratios(chosen, READ, ours, by_bytes=True)
            if shares:
                reached = geometric_mean(shares.values()) >= _READ
                wanted = f"{_READ:.0%}" if name == "t2" else ""
                yield Bar(
                    f"1 token, {regime}, {name}: share of the read bandwidth",
                    _mean_and_least(shares, "%"),
                    wanted,
                    reached if wanted else None,
                )


def _as_auto(times: dict[str, dict[Layer, float]], regime: str) -> dict[Layer, float]:
    """Each layer in the format that `auto` is for its model, where that was measured."""

    def chosen(layer: Layer) -> str:
        n, k, _ = layer
        return "t5" if regime == STREAMED or n * k >= BEYOND_CORES else "t2"

    return {layer: ratio for name in times for layer, ratio in times[name].items() if chosen(layer) == name}


def _few(cases: list[Data]) -> Iterator[Bar]:
    """From one token to many: no number of tokens is a cliff."""
    chosen = [c for c in cases if c["case"]["regime"] == CACHED and c["case"]["tokens"] < _MANY]
    for ours, name in _FORMATS.items():
        several = [c for c in chosen if c["case"]["tokens"] > 1]
        best = {
            f"{peer}, {_label(key)}, {key[2]} tokens": ratio
            for peer in _STOCK
            for key, ratio in _ratios(several, peer, ours).items()
        }
        if best:
            yield Bar(
                f"2 to 64 tokens, {name}: the best of onnxruntime over ours",
                _mean_and_least(best).split(", ", 1)[1],
                f"least {_LEAST} x",
                min(best.values()) >= _LEAST,
            )
        tokens = {c["case"]["tokens"] for c in chosen if _has(c, ours)}
        if len(tokens) > 1:
            worst, where = max(_rises(chosen, ours), default=(1.0, ""))
            figure = f"{worst:.2f} x {where}" if worst > 1 else "never rises"
            holds = worst <= _NOISE
            yield Bar(
                f"{min(tokens)} to {max(tokens)} tokens, {name}: time of a token",
                figure,
                "never rises",
                holds,
            )


def _rises(cases: list[Data], ours: str) -> Iterator[tuple[float, str]]:
    """Where a token takes longer than with fewer tokens, by what the quartiles leave no doubt of."""
    ordered = sorted(cases, key=_layer_and_tokens)
    for layer, group in itertools.groupby(ordered, key=lambda c: _layer_and_tokens(c)[:2]):
        spreads = [(c["case"]["tokens"], _timing(c, ours)["seconds"]) for c in group if _has(c, ours)]
        for (few, before), (more, after) in itertools.pairwise(spreads):
            rise = (after["low"] / more) / (before["high"] / few)
            if rise > 1:
                yield rise, f"from {few} to {more} tokens of {_label(layer)}"


def _many(cases: list[Data], isa: str) -> Iterator[Bar]:
    """Many tokens: onnxruntime's integers, and the instruction."""
    chosen = [c for c in cases if _kind(c) == (_MANY, CACHED)]
    for ours, name in _FORMATS.items():
        wanted_of = _WITH_AMX if isa == "amx" else _WITH_AVX512 if isa.startswith("avx512") else {}
        for peer, title in _NAMES.items():
            times, least = _ratios(chosen, peer, ours), wanted_of.get(peer)
            if times:
                holds = None if least is None else geometric_mean(times.values()) >= least
                wanted = "" if least is None else f"{least} x"
                what = f"128 tokens, {isa}, {name}: {title} over ours"
                yield Bar(what, _mean_and_least(times), wanted, holds)
        shares = _ratios(chosen, PEAK, ours)
        if shares and isa in _PEAK:
            holds = geometric_mean(shares.values()) >= _PEAK[isa]
            figure, wanted = _mean_and_least(shares, "%"), f"{_PEAK[isa]:.0%}"
            yield Bar(f"128 tokens, {isa}, {name}: share of the peak", figure, wanted, holds)


def _odd(cases: list[Data]) -> Iterator[Bar]:
    """Small and odd layers: a float MatMul alone, and with the quantizer that it stands behind."""
    chosen = [c for c in cases if min(c["case"]["n"], c["case"]["k"]) >= _SMALLEST]
    for peer, what in (("float32", "float32 MatMul alone"), ("original", "the layer as exported")):
        for tokens in sorted({c["case"]["tokens"] for c in chosen}):
            times = _ratios([c for c in chosen if c["case"]["tokens"] == tokens], peer, "bitcc")
            if times:
                figure, holds = _mean_and_least(times), min(times.values()) >= 1
                yield Bar(f"odd layers, {tokens} tokens: {what} over ours", figure, "least 1 x", holds)


def _ratios(cases: Sequence[Data], peer: str, ours: str, *, by_bytes: bool = False) -> dict[Layer, float]:
    """By N, K and tokens: the peer's time over ours, or that for a byte of weights."""
    found = {}
    for case in cases:
        if _has(case, peer) and _has(case, ours):
            other, own = _timing(case, peer), _timing(case, ours)
            bytes_ratio = own["weight_bytes"] / other["weight_bytes"] if by_bytes else 1.0
            rounds = zip(other["samples"], own["samples"], strict=True)
            found[_layer_and_tokens(case)] = bytes_ratio * median(a / b for a, b in rounds)
    return found


def _mean_and_least(values: dict[Any, float], unit: str = " x") -> str:
    """The geometric mean, and the least with its name."""
    key = min(values, key=values.__getitem__)
    name = key if isinstance(key, str) else _label(key)
    mean, least = (
        f"{value:.0%}" if unit == "%" else f"{value:.2f}{unit}"
        for value in (geometric_mean(values.values()), values[key])
    )
    return f"{mean}, least {least} ({name})"


def _has(case: Data, name: str) -> bool:
    return any(t["contender"] == name and t["seconds"] for t in case["timings"])


def _timing(case: Data, name: str) -> Data:
    found: Data = next(t for t in case["timings"] if t["contender"] == name)
    return found


def _threads(case: Data) -> int:
    return int(case["case"]["threads"])


def _kind(case: Data) -> tuple[int, str]:
    return case["case"]["tokens"], case["case"]["regime"]


def _layer_and_tokens(case: Data) -> Layer:
    return case["case"]["n"], case["case"]["k"], case["case"]["tokens"]


def _label(key: Sequence[int]) -> str:
    return f"{key[0]} x {key[1]}"
