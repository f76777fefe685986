"""Arguments and options that more than one command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitcc.facts import FormatChoice, Numerics

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", help="What to compile for; may be repeated. Default: this machine. See `bitcc targets`."
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
MinWeights = Annotated[
    int | None,
    typer.Option(
        "--min-weights",
        min=0,
        help="Layers with fewer weights stay as they are; 0 packs all. Default: 4096 for weights with float "
        "activations, where a small MatMul is as fast, and 0 for int8 ones.",
    ),
]

TileSizes = Annotated[
    Path | None,
    typer.Option("--tiles", help="Tile sizes of the kernels, found by `bitcc tune`.", show_default=False),
]

HalfNumerics = Annotated[
    Numerics,
    typer.Option(
        "--numerics",
        help="Activation scales and codes of half-precision models: in float32, or faithful to the original.",
    ),
]

WeightFormat = Annotated[
    FormatChoice,
    typer.Option(
        "--weight-format",
        help="Of layers with int8 activations: `t2`, or `t5`, a fifth smaller and faster only where"
        " AVX512-VBMI computes single tokens of models that the cores' own caches do not hold. `auto` is"
        " `t5` for models of 2^25 weights or more on x86-64, else `t2`.",
    ),
]

Against = Annotated[Path | None, typer.Option("--against", help="The original model.", show_default=False)]

Inputs = Annotated[
    Path | None,
    typer.Option(help="A .npz file of inputs by name. Default: random ones.", show_default=False),
]

OnGpu = Annotated[
    str | None,
    typer.Option(
        "--target", help="`cuda` to run on this machine's GPU. Default: the CPU.", show_default=False
    ),
]
