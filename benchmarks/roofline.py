"""The results of the op under the roofs of the machine, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from benchmarks.report import case_roof, gmac_per_s
from benchmarks.yardsticks import PEAK, READ

if TYPE_CHECKING:
    from pathlib import Path

    Data: TypeAlias = dict[str, Any]

_INTENSITIES = np.geomspace(0.2, 4000, 200)  # multiply-adds for a byte of weights


def draw(result: Data, file: Path) -> None:
    """Write a PNG: a panel for each number of threads.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional

    part = result["parts"]["layers"]
    threads = sorted({r["case"]["threads"] for r in part["cases"]})
    figure = Figure(figsize=(7 * len(threads), 5.5), layout="constrained")
    panels = figure.subplots(1, len(threads), sharey=True, squeeze=False)[0]
    for panel, count in zip(panels, threads, strict=True):
        _roof(panel, result, part, count)
        layers = [name for name in part["contenders"] if name not in {READ, PEAK}]
        for i, name in enumerate(layers):
            for regime, face in (("streamed", f"C{i}"), ("cached", "none")):
                x, y = points(part, name, count, regime)
                label = f"{name}, {regime}"
                panel.scatter(x, y, 26, facecolors=face, edgecolors=f"C{i}", label=label if x else None)
        panel.set(xscale="log", yscale="log", title=f"{count} thread{'s' * (count > 1)}")
        panel.set(xlabel="multiply-adds for a byte of weights", ylabel="billion multiply-adds a second")
        panel.grid(alpha=0.3)
    panels[-1].legend(fontsize="small", loc="lower right", ncols=2)
    machine = part["machine"]
    figure.suptitle(f"{machine['cpu']}, kernels {machine['isa']}, onnxruntime {machine['onnxruntime']}")
    figure.savefig(file, dpi=130)


def points(part: Data, name: str, threads: int, regime: str) -> tuple[list[float], list[float]]:
    """Intensities and speeds of one contender."""
    x, y = [], []
    for result in part["cases"]:
        case = result["case"]
        timing = next(t for t in result["timings"] if t["contender"] == name)
        if (case["threads"], case["regime"]) == (threads, regime) and timing["seconds"]:
            x.append(case["n"] * case["k"] * case["tokens"] / timing["weight_bytes"])
            y.append(gmac_per_s(case, timing["seconds"]["median"]))
    return x, y


def _roof(panel: Any, result: Data, part: Data, threads: int) -> None:
    roof = case_roof({"threads": threads}, part["machine"]["isa"], result["peaks"])
    if roof is not None:
        height = np.minimum(_INTENSITIES * roof["read_gb_per_s"], roof["gmac_per_s"])
        label = f"{roof['read_gb_per_s']:.1f} GB/s, {roof['gmac_per_s']:.0f} GMAC/s"
        panel.plot(_INTENSITIES, height, color="black", label=label)
