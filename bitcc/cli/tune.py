"""``bitcc tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitcc.cli.options import Json
from bitcc.cli.terminal import check_output, print_json, show, working, write

if TYPE_CHECKING:
    from bitcc.targets import Remote


def tune(
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.", show_default=False)],
    target: Annotated[
        str | None, typer.Option(help="What to compile for. Default: this machine.", show_default=False)
    ] = None,
    isa: Annotated[
        str | None, typer.Option(help="Which kernels. Default: those that run here.", show_default=False)
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="How long to measure; compiling takes about as long.")
    ] = 120.0,
    rpc: Annotated[
        str | None,
        typer.Option(help="Measure on the RPC server of TVM at HOST:PORT.", show_default=False),
    ] = None,
    key: Annotated[
        str, typer.Option(help="With --rpc, which is then a tracker: the machine to ask it for.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Find the tile sizes with which the kernels are fastest on this machine, or on another one."""
    from bitcc import report, targets, tuning

    remote = _remote(rpc, key)
    with working(as_json=as_json) as say:
        check_output(output, targets.TILE_FILE_MARK, "a file of tile sizes")
        found = tuning.tune(
            target, isa, seconds=seconds, remote=remote, progress=lambda step: say(step, 0, 0)
        )
        write(output, found.file.to_json())
    if as_json:
        print_json(found.to_dict())
    else:
        show(report.tuned_table(found.changes))
        show(f"{found.isa} on {found.file.machine}\n{output}")


def _remote(rpc: str | None, key: str) -> Remote | None:
    from bitcc.targets import Remote

    if rpc is None:
        if key:
            raise typer.BadParameter("--key belongs to --rpc")
        return None
    host, _, port = rpc.rpartition(":")
    if not host or not port.isdecimal():
        raise typer.BadParameter("write --rpc HOST:PORT")
    return Remote(host, int(port), key)
