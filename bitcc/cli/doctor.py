"""``bitcc doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from bitcc.cli.options import Json
from bitcc.cli.terminal import print_json, show, working


def doctor(
    target: Annotated[
        str | None,
        typer.Option(help="Build the library of this target, and say which kernels it takes on which CPU."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what this machine has, which kernels it would run, and whether the toolchain works."""
    from bitcc import doctor as medicine
    from bitcc import report

    with working(as_json=as_json) as say:
        checks = medicine.examine(lambda step: say(step, 0, 0), target)
    good = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": good, "checks": [asdict(check) for check in checks]})
    else:
        show(report.checks_table(checks))
    if not good:
        raise typer.Exit(1)
