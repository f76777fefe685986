"""The results as tables for people."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from bitcc.bench.machine import Machine
    from bitcc.bench.model import ModelBench, ModelTiming
    from bitcc.bench.results import CaseResult, OpBench, Timing
    from bitcc.bench.rounds import Spread

_DISTURBED = 0.05  # of the cores, in other processes: worth a word
_SLOWEST = 8  # op types in the table of a model


def op_table(bench: OpBench) -> Group:
    """The op benchmark: a table for each number of tokens, regime and number of threads."""

    def kind(result: CaseResult) -> tuple[int, str, int]:
        return result.case.tokens, result.case.regime, result.case.threads

    ordered = sorted(bench.cases, key=kind)
    tables = [_kind_table(bench, *key, list(group)) for key, group in itertools.groupby(ordered, key=kind)]
    legend = [f"{name}: {about}" for name, about in bench.contenders.items()]
    notes = [
        f"milliseconds for one layer, median of {bench.rounds} rounds (quartiles); x: times ours, same round",
        "cached: one layer again and again, a run that computes nothing subtracted; streamed: from memory",
        "gpu: as streamed, the run that computes nothing subtracted; x and y are in the GPU's memory",
        "GB/s n/a: less than a tenth of what was subtracted is left, so no speed can be told",
    ]
    return Group(_machine(bench.machine), *tables, *map(Text, (*notes, *legend, *_failures(bench))))


def model_table(bench: ModelBench) -> Group:
    """The model benchmark."""
    timings = [t for t in (bench.original, bench.compiled) if t is not None]
    table = Table("", title="one run", title_justify="left")
    for heading in ("ms (quartiles)", "best", "model and data"):
        table.add_column(heading, justify="right")
    for timing in timings:
        best = f"{timing.seconds.best * 1e3:.3f}"
        table.add_row(timing.name, _milliseconds(timing.seconds), best, f"{timing.disk_bytes / 1e6:.1f} MB")
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in bench.inputs.items())
    lines = [f"inputs: {shapes}; threads: {bench.threads or 'default'}; {bench.rounds} rounds"]
    if bench.ratio is not None:
        lines.append(f"{bench.ratio:.2f} times as fast; outputs differ by {bench.difference:.1e} of max|y|")
    counted = Counter(node.op for node in bench.layers)
    nodes = ", ".join(f"{count} {op} nodes" for op, count in sorted(counted.items())) or "nothing is packed"
    lines.append(f"op library: {bench.library_bytes / 1e6:.2f} MB; {nodes}")
    return Group(_machine(bench.machine), table, *map(Text, lines), *map(_ops, timings))


def to_text(renderable: Group, width: int = 170) -> str:
    """A table as plain text, for files and logs."""
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def _machine(machine: Machine) -> Text:
    parts = [machine.gpu] if machine.gpu else []
    parts += [machine.cpu, f"{machine.cores} cores", f"kernels {machine.isa}", f"bitcc {machine.bitcc}"]
    parts.append(f"onnxruntime {machine.onnxruntime}")
    parts += [] if machine.load is None else [f"load {machine.load}"]
    return Text(", ".join(parts))


def _kind_table(bench: OpBench, tokens: int, regime: str, threads: int, results: list[CaseResult]) -> Table:
    title = f"{tokens} token(s), {regime}, {threads} thread(s)"
    disturbed = max((result.others or 0.0 for result in results), default=0.0)
    title += f"; other processes took up to {disturbed:.0%} of the cores" if disturbed > _DISTURBED else ""
    table = Table("N x K", title=title, title_justify="left", show_footer=True)
    ours, *peers = bench.contenders
    table.add_column(ours, justify="right")
    table.add_column("GB/s", justify="right", footer="geometric mean")
    means = {
        m.contender: m for m in bench.means if (m.tokens, m.regime, m.threads) == (tokens, regime, threads)
    }
    for peer in peers:
        mean = means.get(peer)
        table.add_column(peer, justify="right")
        table.add_column("x", justify="right", footer=f"{mean.ratio:.2f}" if mean else "-")
    for result in results:
        own, *others = result.timings
        cells = [_cell(own), f"{own.gb_per_s:.1f}" if own.gb_per_s else "n/a"]
        for timing in others:
            cells += [_cell(timing), f"{timing.ratio:.2f}" if timing.ratio else "-"]
        table.add_row(f"{result.case.n} x {result.case.k}", *cells)
    return table


def _cell(timing: Timing) -> str:
    return _milliseconds(timing.seconds) if timing.seconds else "failed"


def _milliseconds(spread: Spread) -> str:
    low, median, high = (f"{s * 1e3:.3f}" for s in (spread.low, spread.median, spread.high))
    return f"{median} ({low}-{high})"


def _failures(bench: OpBench) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for result in bench.cases:
        case = result.case
        where = f"{case.n} x {case.k}, {case.tokens} token(s), {case.regime}, {case.threads} thread(s)"
        for timing in result.timings:
            if timing.reason:
                reasons.setdefault(f"{timing.contender} failed: {timing.reason}", []).append(where)
    return [f"{reason} ({'; '.join(cases)})" for reason, cases in reasons.items()]


def _ops(timing: ModelTiming) -> Table:
    table = Table("op", title=f"{timing.name}, by op (profiler)", title_justify="left")
    for heading in ("nodes", "ms", "%"):
        table.add_column(heading, justify="right")
    total = sum(op.seconds for op in timing.ops) or 1.0
    for op in timing.ops[:_SLOWEST]:
        share = f"{100 * op.seconds / total:.0f}"
        table.add_row(op.op, str(op.nodes), f"{op.seconds * 1e3:.3f}", share)
    return table
