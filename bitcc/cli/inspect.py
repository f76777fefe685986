"""``bitcc inspect``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bitcc.cli.options import HalfNumerics, Json, MinWeights, Targets, WeightFormat
from bitcc.cli.terminal import check_output, nothing_found, print_json, show, working, write
from bitcc.facts import FormatChoice, Numerics


def inspect(
    model: Annotated[Path, typer.Argument(help="An ONNX model, or a bundle.", show_default=False)],
    target: Targets = None,
    min_weights: MinWeights = None,
    numerics: HalfNumerics = Numerics.FP32,
    weight_format: WeightFormat = FormatChoice.AUTO,
    html: Annotated[
        Path | None, typer.Option(help="Write it as a page to this file, too.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Say of every layer what it is, and why it would be left alone."""
    from bitcc import bundle, html_report, report

    is_bundle = os.path.isdir(model)  # noqa: PTH112 - Path.is_dir fails on names that are too long
    if is_bundle:
        _refuse_any(
            target=bool(target),
            min_weights=min_weights is not None,
            numerics=numerics is not Numerics.FP32,
            weight_format=weight_format is not FormatChoice.AUTO,
        )
    with working(as_json=as_json) as say:
        if html is not None:
            check_output(html, html_report.MARK, "a page of bitcc")
        if is_bundle:
            layers = bundle.read(model).manifest.layers
        else:
            from bitcc import pipeline  # takes a second, and a manifest needs none of it

            request = pipeline.Request(
                targets=tuple(target) if target else None,
                min_weights=min_weights,
                numerics=numerics,
                weight_format=weight_format,
            )
            layers = pipeline.examine(model, request, say)
        if html is not None:
            write(html, html_report.page(model.name, layers))
    if as_json:
        print_json({"layers": [asdict(layer) for layer in layers]})
    else:
        show(report.layers_table(layers, detailed=True))
        show(report.summary(layers))
    if not any(layer.status == "packed" for layer in layers):
        nothing_found("no BitLinear would be packed", "the reason of each layer is above", layers)


def _refuse_any(**given: bool) -> None:
    """A bundle has been compiled: nothing about it can be chosen any more."""
    for name, is_given in given.items():
        if is_given:
            raise typer.BadParameter(f"--{name.replace('_', '-')} is for a model, and this is a folder")
