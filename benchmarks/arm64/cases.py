"""What is counted: a layer of random weights, in onnxruntime and in ggml."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.onnx_peers import NBITS4
from bitcc.bench import models
from bitcc.bench.contenders import BITCC, PEERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bitcc.bench.contenders import Layer

_CONTENDERS = (BITCC, *PEERS, NBITS4)
_GGML_TYPES = ("tq2_0", "tq1_0", "q2_0")


@dataclass(frozen=True)
class Case:
    """A way to compute a layer, as `guest` reads it.

    Attributes:
        name: Of its results.
        contender: For tables.
        tokens: M.
        models: With one layer and with two; none in ggml.
        type: Of weights, by ggml's name; empty in onnxruntime.
    """

    name: str
    contender: str
    tokens: int
    models: tuple[str, ...] = ()
    type: str = ""


def write(folder: Path, layers: Sequence[Layer], *, ggml: bool) -> list[Case]:
    """Write all that `guest` reads; the layers differ in their number of tokens alone."""
    cases = list(_in_onnxruntime(folder, layers))
    if ggml:
        cases += _in_ggml(layers)
    (folder / "cases.json").write_text(json.dumps([asdict(case) for case in cases]), encoding="utf-8")
    np.save(folder / "weights.npy", layers[0].weights * layers[0].scale)
    for layer in layers:
        np.save(folder / f"x{len(layer.x)}.npy", layer.x)
    return cases


def _in_onnxruntime(folder: Path, layers: Sequence[Layer]) -> Iterator[Case]:
    for layer in layers:
        for contender in _CONTENDERS:
            name = f"{contender.name}-{len(layer.x)}"
            one = models.write(folder / f"{name}-1", contender, layer)
            two = models.write(folder / f"{name}-2", contender, layer, 2 * one.weight_bytes)
            paths = tuple(str(stack.path.relative_to(folder)) for stack in (one, two))
            yield Case(name, contender.name, len(layer.x), models=paths)


def _in_ggml(layers: Sequence[Layer]) -> Iterator[Case]:
    for layer in layers:
        for kind in _GGML_TYPES:
            yield Case(f"{kind}-{len(layer.x)}", f"ggml {kind.upper()}", len(layer.x), type=kind)
