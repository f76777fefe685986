"""``bitcc verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitcc.cli.options import Against, Inputs, Json, OnGpu
from bitcc.cli.terminal import print_json, show, working


def verify(
    bundle: Annotated[Path, typer.Argument(help="The folder that `bitcc compile` made.", show_default=False)],
    against: Against = None,
    inputs: Inputs = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Largest difference relative to max|y|. Default: 0.01, or 0.05 where the original computes "
            "in half precision.",
            show_default=False,
        ),
    ] = None,
    target: OnGpu = None,
    as_json: Json = False,
) -> None:
    """Check that a bundle is whole and computes what the original model computes."""
    from bitcc import report
    from bitcc.verify import verify_bundle
    from bitcc.verify.certificate import require

    with working(as_json=as_json) as say:
        say("verifying", 0, 0)
        certificate = verify_bundle(bundle, against, inputs, tolerance, target)
    if as_json:
        print_json(certificate.to_dict())
    else:
        show(f"files and packed weights are whole\n{report.verdict(certificate.to_dict())}")
    require(certificate)
