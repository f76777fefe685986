"""Results, as JSON has them, as tables in Markdown."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.peaks import variant_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Data: TypeAlias = dict[str, Any]

_HOLDS = {True: "yes", False: "**no**", None: ""}
_DISTURBED = 0.05  # of the cores, in other processes: worth a word


def markdown(result: Data) -> str:
    """The tables of a suite."""
    blocks = {"op": _op, "block": _block, "model": _model}[result["suite"]](result)
    return "\n\n".join(blocks) + "\n"


def case_roof(case: Data, isa: str, peaks: Sequence[Data]) -> Data | None:
    """The peaks for the kernels that ran, with as many threads."""
    key = variant_of(isa), case["threads"]
    return next((p for p in peaks if (p["variant"], p["threads"]) == key), None)


def gmac_per_s(case: Data, seconds: float) -> float:
    """Billions of multiply-adds a second of a layer."""
    return float(case["n"] * case["k"] * case["tokens"] / seconds / 1e9)


def _op(result: Data) -> Iterator[str]:
    first = next(iter(result["parts"].values()))
    yield _machine(first["machine"])
    yield _peaks(result)
    for name, part in result["parts"].items():
        groups = sorted(part["cases"], key=_kind)
        for kind, cases in itertools.groupby(groups, key=_kind):
            yield _kind_table(name, kind, list(cases), part, result["peaks"])
        yield from _failures(part)
    if result["bars"]:
        rows = [[bar["name"], bar["figure"], bar["wanted"], _HOLDS[bar["holds"]]] for bar in result["bars"]]
        yield "### bars\n\n" + table(["", "measured", "wanted", "holds"], rows)
    about = [f"- {name}: {text}" for name, text in first["contenders"].items()]
    yield "\n".join(about + [f"- {name}: not measured: {why}" for name, why in result["missing"].items()])
    yield (
        f"ms for one layer: median of {first['rounds']} rounds (quartiles). x: the peer's time over ours "
        "in the same round, median. cached: one layer again and again, less the empty call of a session; "
        "streamed: layers of more bytes than the caches hold, one after the other."
    )


def _kind(result: Data) -> tuple[int, str, int]:
    case = result["case"]
    return case["tokens"], case["regime"], case["threads"]


def _kind_table(
    name: str, kind: tuple[int, str, int], cases: list[Data], part: Data, peaks: list[Data]
) -> str:
    tokens, regime, threads = kind
    ours, *others = part["contenders"]
    rows = []
    for result in cases:
        case, isa = result["case"], part["machine"]["isa"]
        own, *timings = result["timings"]
        roof = case_roof(case, isa, peaks) or {}
        speed = gmac_per_s(case, own["seconds"]["median"])
        cells = [_ms(own), _share(own["gb_per_s"], roof.get("read_gb_per_s"))]
        cells.append(_share(speed, roof.get("gmac_per_s")))
        for timing in timings:
            cells += [_ms(timing), _times(timing["ratio"])]
        rows.append([f"{case['n']} x {case['k']}", *cells])
    means = {m["contender"]: m for m in part["means"] if (m["tokens"], m["regime"], m["threads"]) == kind}
    footer = ["geometric mean", "", "", ""]
    for peer in others:
        footer += ["", _mean(means.get(peer), len(cases))]
    heads = ["N x K", ours, "GB/s (of read)", "GMAC/s (of peak)"]
    heads += [head for peer in others for head in (peer, "x")]
    title = f"### {name}: M = {tokens}, {regime}, {threads} thread{'s' * (threads > 1)}"
    taken = max((result["others"] or 0.0 for result in cases), default=0.0)
    note = f"\n\nother processes took up to {taken:.0%} of the cores" if taken > _DISTURBED else ""
    return f"{title}{note}\n\n{table(heads, [*rows, footer])}"


def _block(result: Data) -> Iterator[str]:
    yield _machine(result["machine"])
    for case in result["cases"]:
        threads = case["threads"]
        title = f"### block: M = {case['tokens']}, {case['past']} tokens in the cache, {threads} thread(s)"
        rows = [
            [name, _spread(timing["seconds"]), _times(timing["ratio"]), f"{timing['difference']:.1e}"]
            for name, timing in case["timings"].items()
        ]
        yield f"{title}\n\n{table(['', 'ms', 'x', 'difference from bitcc'], rows)}"
    yield "\n".join(f"- {name}: {text}" for name, text in result["contenders"].items())
    yield f"x: the time over ours in the same round, the median of {result['rounds']} rounds."


def _model(result: Data) -> Iterator[str]:
    yield _machine(result["machine"])
    tokens = result["tokens"]
    rows = [
        [timing["name"], _spread(timing["seconds"]), f"{tokens / timing['seconds']['median']:.0f}"]
        for timing in (result["original"], result["compiled"])
    ]
    yield table(["", "ms a run", "tokens/s"], rows)
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in result["inputs"].items())
    yield f"inputs: {shapes}"
    yield f"{result['ratio']:.2f} times as fast, outputs differ by {result['difference']:.1e} of max|y|"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _machine(machine: Data) -> str:
    text = f"{machine['cpu']}, {machine['cores']} cores, kernels {machine['isa']}, bitcc {machine['bitcc']}, "
    return text + f"onnxruntime {machine['onnxruntime']}, load {machine['load']} when it began"


def _peaks(result: Data) -> str:
    rows = [
        [p["variant"], str(p["threads"]), f"{p['gmac_per_s']:.1f}", f"{p['read_gb_per_s']:.1f}"]
        for p in result["peaks"]
    ]
    heads = ["variant", "threads", "GMAC/s", "read GB/s"]
    measured = [table(heads, rows)] if rows else []
    missing = [f"{variant}: not measurable here: {why}" for variant, why in result["no_peaks"].items()]
    return "\n\n".join(["### peaks", *measured, *missing])


def _failures(part: Data) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for result in part["cases"]:
        case = result["case"]
        for timing in result["timings"]:
            if timing["reason"]:
                shape = f"{case['n']} x {case['k']}"
                reasons.setdefault(f"{timing['contender']} failed: {timing['reason']}", []).append(shape)
    for reason, shapes in reasons.items():
        yield f"{reason} ({', '.join(dict.fromkeys(shapes))})"


def _ms(timing: Data) -> str:
    return _spread(timing["seconds"]) if timing["seconds"] else "failed"


def _spread(seconds: Data) -> str:
    low, median, high = (f"{seconds[key] * 1e3:.4g}" for key in ("low", "median", "high"))
    return f"{median} ({low}-{high})"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _share(value: float | None, roof: float | None) -> str:
    if value is None:  # lost in the time of the session's call
        return "n/a"
    return f"{value:.1f}" + (f" ({value / roof:.0%})" if roof else "")


def _mean(mean: Data | None, cases: int) -> str:
    if mean is None:
        return "-"
    return f"{mean['ratio']:.2f}" + (f" of {mean['shapes']} shapes" if mean["shapes"] < cases else "")
