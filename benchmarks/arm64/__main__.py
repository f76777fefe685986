"""Instructions that arm64 cores run for one layer: ours and those of peers, counted in qemu.

    PYTHONPATH=tests python -m benchmarks.arm64 FOLDER [--ggml SDIST] [--json FILE]

FOLDER is the environment that `make test-arm64` makes, SDIST the source distribution of llama-cpp-python. The
whole op is counted, with the quantization of its activations: what a run with one layer more takes than one
without it. A count is no time: it says nothing of how long an instruction takes, or of the memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.arm64 import cases
from benchmarks.arm64.emulator import CORES, Emulator
from bitcc import libraries
from bitcc.bench.contenders import BITCC, random_layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from bitcc.bench.contenders import Layer

_GGML_MULTIPLE = 256
_TOLERANCE = 5e-2  # of max|y|: peers round activations in coarser ways
_PRODUCTS = 256  # for which instructions are shown: those of 64 bytes of 2-bit weights


@dataclass(frozen=True)
class Count:
    """What a layer took.

    Attributes:
        variant: Ours that the core takes.
        contender: Who computed it.
        tokens: M.
        instructions: 0 where there is a problem.
        problem: Why there is no count.
    """

    variant: str
    contender: str
    tokens: int
    instructions: int = 0
    problem: str = ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environment", type=Path, metavar="FOLDER")
    parser.add_argument("--ggml", type=Path, metavar="SDIST")
    parser.add_argument("--shape", type=int, nargs=2, default=(2048, 2048), metavar=("N", "K"))
    parser.add_argument("--tokens", type=int, nargs="+", default=(1, 32), metavar="M")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(arguments)
    n, k = chosen.shape
    layers = [random_layer(n, k, tokens) for tokens in chosen.tokens]
    there = chosen.ggml is not None and chosen.ggml.is_file()
    sdist = chosen.ggml if there and k % _GGML_MULTIPLE == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        counts = list(_counts(Path(folder), chosen.environment.absolute(), layers, sdist))
    print(report(counts, n * k))
    if sdist is None:
        print(f"\nggml is not counted: it needs a file for --ggml, and K in multiples of {_GGML_MULTIPLE}")
    if chosen.json:
        result = {"n": n, "k": k, "counts": [asdict(count) for count in counts]}
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _counts(folder: Path, machine: Path, layers: Sequence[Layer], sdist: Path | None) -> Iterator[Count]:
    """All cases on all cores."""
    found = cases.write(folder, layers, ggml=sdist is not None)
    if sdist is not None:
        _unpack(sdist, folder / "ggml")
    library = libraries.library_path("arm64")
    emulator = Emulator(machine, folder)
    emulator.build_plugin()
    references = {len(layer.x): layer.reference() for layer in layers}
    for core in CORES:
        print(f"counting on {core.qemu}", file=sys.stderr)
        if sdist is not None:
            emulator.build_ggml(core)
        errors, runs = emulator.count(core, library)
        pairs = zip(runs[::2], runs[1::2], strict=True)
        for case in found:
            problem = errors.get(case.name, "")
            less, more = (0, 0) if problem else next(pairs)
            problem = problem or wrong(np.load(folder / f"{case.name}.npy"), references[case.tokens])
            instructions = 0 if problem else more - less
            yield Count(core.variant, case.contender, case.tokens, instructions, problem)


def _unpack(sdist: Path, folder: Path) -> None:
    """Write ggml's sources."""
    with tarfile.open(sdist) as archive:
        for member in archive:
            path = member.name.partition("/vendor/llama.cpp/ggml/")[2]
            if path.startswith(("include/", "src/ggml")):
                member.name = path
                archive.extract(member, folder, filter="data")


def wrong(y: NDArray[np.float32], reference: NDArray[np.float32]) -> str:
    """What is wrong with a result; empty if nothing is."""
    off = np.abs(y - reference).max() / np.abs(reference).max()
    return "" if off <= _TOLERANCE else f"computes something else: off by {off:.1g} of max|y|"


def report(counts: Sequence[Count], products: int) -> str:
    """A table for each core."""
    tables = []
    for variant in dict.fromkeys(count.variant for count in counts):
        here = {(count.contender, count.tokens): count for count in counts if count.variant == variant}
        tokens = list(dict.fromkeys(m for _, m in here))
        head = [variant, *(f"{m} token{'s' * (m > 1)}" for m in tokens)]
        rows = [
            [name, *(_cell(here[name, m], here[BITCC.name, m], products) for m in tokens)]
            for name in dict.fromkeys(name for name, _ in here)
        ]
        table = [head, ["---"] * len(head), *rows]
        tables.append("\n".join(f"| {' | '.join(row)} |" for row in table))
    return "\n\n".join(tables)


def _cell(count: Count, ours: Count, products: int) -> str:
    """Such as ``104 (2.54)``: instructions, and how many times ours."""
    if count.problem:
        return count.problem
    each = count.instructions * _PRODUCTS / (products * count.tokens)
    ratio = f" ({count.instructions / ours.instructions:.2f})" if ours.instructions else ""
    return f"{each:.3g}{ratio}"


if __name__ == "__main__":
    main()
