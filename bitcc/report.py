"""What the commands print, as tables for people; scripts read ``--json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bitcc.facts import PACKED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bitcc.doctor import Check
    from bitcc.facts import LayerFacts
    from bitcc.targets import Change, Target

_KILO = 1024
_DETAILS = ("bits", "activations", "format")
_RESULTS = ("bytes", "error", "")
_WRAPPED = frozenset({"layer", "weights", "activations"})  # columns, down to so many letters:
_NARROWEST = 16
NUMERICS = {
    "snapped": "its weights had the noise of rounding around their levels, and are the levels now; the error "
    "is that of the arithmetic, and that of the weights is beside it",
    "float32": "what the original rounds to half precision or int8 is computed in float32; the error is that "
    "of the arithmetic in float32, without this rounding",
    "faithful": "activation codes are rounded as in the original, sums are not; the error is that of the "
    "arithmetic in float32",
}
"""What words for numerics mean, except ``exact``."""
_RIGHT = frozenset({"N x K", "bits", "bytes", "error"})


def size(count: int) -> str:
    """A number of bytes for a reader, such as ``1.3 MB``."""
    value = float(count)
    for unit in ("B", "KB", "MB"):
        if value < _KILO:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KILO
    return f"{value:.2f} GB"


def layers_table(layers: Sequence[LayerFacts], *, detailed: bool = False) -> Group:
    """One row for each candidate layer, and below it why layers were left alone.

    Args:
        layers: The layers.
        detailed: Tell also of scopes, entropies and activations.
    """
    names = ("layer", "N x K", "weights", *(_DETAILS if detailed else ()), *_RESULTS)
    rows = [_row(layer, detailed=detailed) for layer in layers]
    table = Table(box=None, pad_edge=False)
    for name, cells in zip(names, zip(names, *rows, strict=True), strict=True):
        needed = max(cell_len(str(cell)) for cell in cells)
        table.add_column(
            name,
            # rich would leave nothing of some columns where the terminal is narrow: lines get longer than it
            min_width=min(needed, _NARROWEST) if name in _WRAPPED else needed,
            overflow="fold",
            justify="right" if name in _RIGHT else "left",
        )
    for row in rows:
        table.add_row(*row)
    return Group(table, *_reasons(layers), *_numerics(layers), *_merged(layers))


def _row(layer: LayerFacts, *, detailed: bool) -> tuple[Text, ...]:
    packed = layer.status == PACKED
    after = f" -> {size(layer.bytes_after)}" if packed else ""
    details = (bits(layer), activations(layer), layer.weight_format) if detailed else ()
    cells = (
        layer.name,
        shape(layer) or "-",
        weights(layer, scope=detailed),
        *(detail or "-" for detail in details),
        f"{size(layer.bytes_before)}{after}",
        error(layer) or "-",
    )
    return (*map(Text, cells), Text(layer.status, style="green" if packed else "yellow"))


def shape(layer: LayerFacts) -> str:
    """``N x K``, where it is known."""
    return f"{layer.N} x {layer.K}" if layer.N else ""


def weights(layer: LayerFacts, *, scope: bool) -> str:
    """What the weights are, or what they come closest to."""
    if layer.zeros is None:
        return layer.nearest or layer.scheme
    kind, _, columns = layer.scope.partition(":")
    scales = f", a scale for each {columns} columns" if columns else f", {kind} scale"
    return layer.scheme + (scales if scope else "") + (f", {layer.zeros:.0%} zero" if layer.zeros else "")


def bits(layer: LayerFacts) -> str:
    """The entropy of the levels, in bits a weight."""
    return "" if layer.entropy is None else f"{layer.entropy:.2f}"


def activations(layer: LayerFacts) -> str:
    """``RMS norm, int8, per token`` and the like, where they are known."""
    kind, _, scope = layer.activation.partition("_")
    norm = [f"{layer.norm.upper()} norm"] if layer.norm else []
    return ", ".join([*norm, *filter(None, [kind]), *([f"per {scope}"] if scope else [])])


def error(layer: LayerFacts) -> str:
    """The largest differences that were measured, if they were, and which numerics are not the original's."""
    parts = [] if layer.max_error is None else [f"{layer.max_error:.0e}"]
    parts += [] if layer.numerics in {"", "exact"} else [layer.numerics]
    parts += [f"weights {layer.weight_error:.0e}"] if layer.weight_error else []
    return ", ".join(parts)


def _reasons(layers: Sequence[LayerFacts]) -> Iterator[Text]:
    """Every reason once, with the layers that have it and what can be done about it."""
    by_reason: dict[tuple[str, str, str], list[str]] = {}
    for layer in layers:
        if layer.reason:
            by_reason.setdefault((layer.status, layer.reason, layer.fix), []).append(layer.name)
    for (status, reason, fix), names in by_reason.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield Text(f"{status} {names[0]}{more}: {reason}", style="" if status == PACKED else "yellow")
        if fix:
            yield Text(f"  fix: {fix}")


def _numerics(layers: Sequence[LayerFacts]) -> Iterator[Text]:
    """One line for each kind of numerics that is not the original's."""
    for kind, meaning in NUMERICS.items():
        names = [layer.name for layer in layers if layer.numerics == kind]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        if names:
            yield Text(f"{kind} {names[0]}{more}: {meaning}")


def _merged(layers: Sequence[LayerFacts]) -> Iterator[Text]:
    """One line for all layers that are one op with others."""
    groups = dict.fromkeys(layer.merged for layer in layers if layer.merged)
    if groups:
        more = f" and {len(groups) - 1} more" if len(groups) > 1 else ""
        yield Text(f"merged {next(iter(groups))}{more}: one op for layers that quantise the same activations")


def summary(layers: Sequence[LayerFacts]) -> str:
    """A line about all layers, and one if CPUs differ in what they make of the weights."""
    packed = [layer for layer in layers if layer.status == PACKED]
    before = sum(layer.bytes_before for layer in packed)
    after = sum(layer.bytes_after for layer in packed)
    line = f"{len(packed)} of {len(layers)} layers packed"
    line += f": {size(before)} of weights become {size(after)}" if packed else ""
    in_t5 = sum(layer.N * layer.K for layer in packed if layer.weight_format == "t5")
    if in_t5:
        line += f"\nformat t5: CPUs without AVX512-VBMI expand it, {size(in_t5 // 4)} in memory for a session"
    return line


def on_gpu(packed: Sequence[LayerFacts]) -> str:
    """Where a session for CUDA runs the layers that were packed."""
    slow = [layer.name for layer in packed if layer.activation == "float"]
    if not slow:
        return f"with CUDA all {len(packed)} run on the GPU"
    more = f" and {len(slow) - 1} more" if len(slow) > 1 else ""
    return (
        f"with CUDA {len(packed) - len(slow)} run on the GPU; on the CPU, with copies there and back, since "
        f"its activations are float: {slow[0]}{more}"
    )


def verdict(certificate: dict[str, Any]) -> str:
    """One line about a certificate of ``bitcc.verify``."""
    errors = {"with the library": certificate["max_error_library"], "without": certificate["max_error_body"]}
    figures = ", ".join(f"{error:.1e} of max|y| {how}" for how, error in errors.items() if error is not None)
    measured = f"{figures} ({certificate['inputs']}, against the {certificate['against']})" if figures else ""
    return (
        f"verification {certificate['status']}: {'; '.join(filter(None, [measured, certificate['reason']]))}"
    )


def tuned_table(changes: Iterable[Change]) -> Table:
    """One row for each kernel that ``bitcc tune`` looked at."""
    table = Table(*("kernel", "default", "fastest", "times as fast"), box=None, pad_edge=False)
    for change in changes:
        faster = change.ratio > 1
        after, ratio = (change.after, f"{change.ratio:.2f}") if faster else ("the same", "")
        table.add_row(change.kernel, change.before, after, ratio)
    return table


def targets_table(targets: Sequence[Target]) -> Group:
    """One row for each target, and what users should know of its kernels."""
    table = Table(box=None, pad_edge=False)
    for name in ("target", "runs on", "kernels, best first", "tested"):
        table.add_column(name, no_wrap=name == "target")
    for target in targets:
        kernels = (*target.gpu_code, *(variant.name for variant in target.variants))
        table.add_row(target.name, target.needs, ", ".join(kernels), target.proof)
    noted: dict[str, list[str]] = {}
    for target in targets:
        for variant in target.variants:
            if variant.note:
                noted.setdefault(f"{variant.name}: {variant.note}", []).append(target.name)
    return Group(table, *(Text(f"{', '.join(names)}, {note}") for note, names in noted.items()))


def checks_table(checks: Iterable[Check]) -> Table:
    """One row for each check of ``bitcc doctor``."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in ("mark", "name", "detail"):
        table.add_column(overflow="fold")  # of a path all is needed
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("BAD", style="red")
        hint = "" if check.ok or not check.hint else f"\nhint: {check.hint}"
        table.add_row(mark, check.name, Text(check.detail + hint))
    return table
