"""``bitcc compile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitcc.cli.options import HalfNumerics, Json, MinWeights, Targets, TileSizes, WeightFormat
from bitcc.cli.terminal import nothing_found, show, working
from bitcc.facts import FormatChoice, Numerics


def compile(  # noqa: A001 - the name of the command
    model: Annotated[Path, typer.Argument(help="An ONNX model.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to make.", show_default=False)],
    target: Targets = None,
    min_weights: MinWeights = None,
    numerics: HalfNumerics = Numerics.FP32,
    tiles: TileSizes = None,
    weight_format: WeightFormat = FormatChoice.AUTO,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify", help="Run the whole model before and after. Default: up to 256 MB."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if a layer with ternary weights would be left alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compile a model into a bundle: packed model, kernel library, manifest."""
    from bitcc import pipeline, report

    request = pipeline.Request(
        targets=tuple(target) if target else None,
        min_weights=min_weights,
        verify=verify,
        force=force,
        strict=strict,
        numerics=numerics,
        tiles=tiles,
        weight_format=weight_format,
    )
    with working(as_json=as_json) as say:
        bundle = pipeline.compile_model(model, output, request, say)
    if as_json:
        print(bundle.manifest.to_json(), end="", flush=True)
    else:
        show(report.layers_table(bundle.manifest.layers))
        show(report.summary(bundle.manifest.layers))
        if any(entry.gpus for entry in bundle.manifest.targets):
            show(report.on_gpu(bundle.packed))
        show(f"{report.verdict(bundle.manifest.verify)}\n{output}")
    if not bundle.packed:
        what = f"no BitLinear was packed; `{output}` holds the model unchanged"
        nothing_found(what, "`bitcc inspect` says of each layer why", bundle.manifest.layers)
