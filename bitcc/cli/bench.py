"""``bitcc bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitcc.cli.options import Against, Inputs, Json, OnGpu, TileSizes
from bitcc.cli.terminal import print_json, show, working


def bench(
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle; without one, the op is timed.", show_default=False)
    ] = None,
    against: Against = None,
    inputs: Inputs = None,
    dim: Annotated[
        list[str] | None, typer.Option(help="Size of a dynamic dimension, NAME=SIZE; may be repeated.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="For a bundle; 0 is onnxruntime's default.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Time the op on two shapes only.")] = False,
    tiles: TileSizes = None,
    target: OnGpu = None,
    as_json: Json = False,
) -> None:
    """Time the op against onnxruntime's own kernels, or a bundle against its model, in interleaved rounds."""
    from bitcc import libraries, runtime
    from bitcc.bench import cuda, model, op, table
    from bitcc.verify.inputs import load_inputs

    _refuse_unused(bundle, against=against, inputs=inputs, dim=dim, threads=threads, quick=quick, tiles=tiles)
    if inputs and dim:
        raise typer.BadParameter("--dim is for random inputs, without --inputs")
    dims = _dims(dim or [])
    with working(as_json=as_json) as say:
        gpu = runtime.check_target(target)
        if bundle is None:
            library = libraries.library_path(target, lambda step: say(step, 0, 0), tiles)
            suite = cuda if gpu else op
            of_op = suite.run(library, suite.quick() if quick else None, progress=say)
            data, rendered = of_op.to_dict(), table.op_table(of_op)
        else:
            say("timing", 0, 0)
            feeds = None if inputs is None else load_inputs(inputs)
            of_model = model.run(bundle, against, feeds=feeds, dims=dims, threads=threads, gpu=gpu)
            data, rendered = of_model.to_dict(), table.model_table(of_model)
    if as_json:
        print_json(data)
    else:
        show(rendered)


def _refuse_unused(bundle: Path | None, **options: object) -> None:
    of_op = {"quick", "tiles"}
    for name, value in options.items():
        if value and (name in of_op) == (bundle is not None):
            raise typer.BadParameter(
                f"--{name} is for a bench {'without' if name in of_op else 'of'} a bundle"
            )


def _dims(arguments: list[str]) -> dict[str, int]:
    pairs = [argument.rpartition("=") for argument in arguments]
    if not all(name and size.isdecimal() for name, _, size in pairs):
        raise typer.BadParameter("write --dim NAME=SIZE, such as --dim sequence=1")
    return {name: int(size) for name, _, size in pairs}
