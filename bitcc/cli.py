"""The command line: parse, call, print. Data goes to stdout, words to stderr.

Exit codes: 0 done, 1 the input is at fault, 2 usage, 3 no BitLinear found, 4 verification failed.
"""

from __future__ import annotations

import io
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitcc import json_text
from bitcc.errors import BitccError
from bitcc.facts import FormatChoice, Numerics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bitcc.facts import LayerFacts
    from bitcc.targets import Remote

NOTHING_FOUND = 3

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Compile BitNet-style ternary ONNX models: packed weights and fast kernels for onnxruntime.",
    epilog="Example: `bitcc compile model.onnx -o bundle`, then `bitcc.session('bundle')` in Python.",
)

Model = Annotated[Path, typer.Argument(help="An ONNX model.", show_default=False)]
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
        " AVX512-VBMI computes single tokens with weights from memory. `auto` is `t5` for models of 2^28"
        " weights or more on x86-64, else `t2`.",
    ),
]


@app.command(epilog="Example: `bitcc compile model.onnx -o bundle --target x86-64`")
def compile(  # noqa: A001 - the name of the command
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to make.", show_default=False)],
    target: Annotated[
        list[str] | None, typer.Option(help="Target; may be repeated. See `bitcc targets`.")
    ] = None,
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
    from bitcc import verify as certificates

    request = pipeline.Request(
        tuple(target) if target else None,
        min_weights,
        verify,
        force,
        strict,
        numerics,
        tiles,
        weight_format,
    )
    with _progress() as say:
        bundle = pipeline.compile_model(model, output, request, say)
    if as_json:
        print(bundle.manifest.to_json(), end="")
    else:
        _print(report.layers_table(bundle.manifest.layers))
        _print(report.summary(bundle.manifest.layers))
        if any(entry.gpus for entry in bundle.manifest.targets):
            _print(report.on_gpu(bundle.packed))
        _print(f"{_verdict(bundle.manifest.verify)}\n{output}")
    certificate = certificates.Certificate(**bundle.manifest.verify)
    certificates.require(certificate)
    if not bundle.packed:
        what = f"no BitLinear was packed; `{output}` holds the model unchanged"
        _nothing_found(what, "`bitcc inspect` says of each layer why", bundle.manifest.layers)


@app.command(epilog="Examples: `bitcc inspect model.onnx`, `bitcc inspect model.onnx --html report.html`")
def inspect(
    model: Model,
    min_weights: MinWeights = None,
    numerics: HalfNumerics = Numerics.FP32,
    weight_format: WeightFormat = FormatChoice.AUTO,
    html: Annotated[Path | None, typer.Option(help="Write a page of it here.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Say of every layer what it is, and why it would be left alone. Takes a model or a bundle."""
    from bitcc import bundle, html_report, pipeline, report

    if model.is_dir():
        layers = bundle.read(model).manifest.layers
    else:
        with _progress() as say:
            request = pipeline.Request(
                min_weights=min_weights, numerics=numerics, weight_format=weight_format
            )
            layers = pipeline.examine(model, request, say)
    if html is not None:
        _write(html, html_report.page(model.name, layers))
    if as_json:
        _print_json({"layers": [asdict(layer) for layer in layers]})
    else:
        _print(report.layers_table(layers, detailed=True))
        _print(report.summary(layers))
    if not any(layer.status == "packed" for layer in layers):
        _nothing_found("no BitLinear would be packed", "the reason of each layer is above", layers)


@app.command(
    epilog="Examples: `bitcc verify bundle --against model.onnx --inputs inputs.npz`, "
    "`bitcc verify bundle --target cuda`"
)
def verify(
    bundle: Annotated[Path, typer.Argument(help="The folder that `bitcc compile` made.", show_default=False)],
    against: Annotated[Path | None, typer.Option(help="The original model.", show_default=False)] = None,
    inputs: Annotated[Path | None, typer.Option(help="Inputs by name, .npz.", show_default=False)] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest difference relative to max|y|.")] = 1e-2,
    target: Annotated[
        str | None,
        typer.Option(help="`cuda` to run it on this machine's GPU. Default: the CPU.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check that a bundle is whole and computes what the original model computes."""
    from bitcc import verify as certificates

    with _progress() as say:
        say("verifying", 0, 0)
        certificate = certificates.verify_bundle(bundle, against, inputs, tolerance, target)
    if as_json:
        _print_json(certificate.to_dict())
    else:
        _print(_verdict(certificate.to_dict()))
    certificates.require(certificate)


@app.command(
    epilog="Examples: `bitcc bench --quick`, `bitcc bench bundle --against model.onnx --dim sequence=1`, "
    "`bitcc bench --target cuda`"
)
def bench(
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle; without one, the op is timed.", show_default=False)
    ] = None,
    against: Annotated[Path | None, typer.Option(help="The original model.", show_default=False)] = None,
    dim: Annotated[
        list[str] | None, typer.Option(help="Size of a dynamic dimension, NAME=SIZE; may be repeated.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="For a bundle; 0 is onnxruntime's default.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Time the op on two shapes only.")] = False,
    tiles: TileSizes = None,
    target: Annotated[
        str | None,
        typer.Option(help="`cuda` to run on this machine's GPU. Default: the CPU.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Time the op against onnxruntime's own kernels, or a bundle against its model, in interleaved rounds."""
    from bitcc import libraries, runtime
    from bitcc.bench import cuda, model, op, table

    gpu = runtime.check_target(target)
    with _progress() as say:
        if bundle is None:
            library = libraries.library_path(target, lambda step: say(step, 0, 0), tiles)
            suite = cuda if gpu else op
            of_op = suite.run(library, suite.quick() if quick else None, progress=say)
            data, rendered = of_op.to_dict(), table.op_table(of_op)
        else:
            say("timing", 0, 0)
            of_model = model.run(bundle, against, dims=_dims(dim or []), threads=threads, gpu=gpu)
            data, rendered = of_model.to_dict(), table.model_table(of_model)
    if as_json:
        _print_json(data)
    else:
        _print(rendered)


@app.command(
    epilog="Example: `bitcc tune -o tiles.json`, then `bitcc compile model.onnx --tiles tiles.json -o bundle`"
)
def tune(
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.", show_default=False)],
    target: Annotated[str | None, typer.Option(help="Default: this machine's.", show_default=False)] = None,
    isa: Annotated[
        str | None, typer.Option(help="Which kernels. Default: those that run here.", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="To measure; compiling takes about as long.")] = 120.0,
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
    from bitcc import report, tuning

    remote = _remote(rpc, key)
    with _progress() as say:
        found = tuning.tune(
            target, isa, seconds=seconds, remote=remote, progress=lambda step: say(step, 0, 0)
        )
    _write(output, found.file.to_json())
    if as_json:
        _print_json(found.to_dict())
    else:
        _print(report.tuned_table(found.changes))
        _print(f"{found.isa} on {found.file.machine}\n{output}")


def _remote(rpc: str | None, key: str) -> Remote | None:
    from bitcc.targets import Remote

    if rpc is None:
        if key:
            raise typer.BadParameter("--key belongs to --rpc")
        return None
    host, _, port = rpc.rpartition(":")
    if not host or not port.isdigit():
        raise typer.BadParameter("write --rpc HOST:PORT")
    return Remote(host, int(port), key)


def _dims(arguments: list[str]) -> dict[str, int]:
    pairs = [argument.rpartition("=") for argument in arguments]
    if not all(name and size.isdigit() for name, _, size in pairs):
        raise typer.BadParameter("write --dim NAME=SIZE, such as --dim sequence=1")
    return {name: int(size) for name, _, size in pairs}


@app.command(epilog="Example: `bitcc targets --json`")
def targets(as_json: Json = False) -> None:
    """List what can be compiled for."""
    from bitcc import report
    from bitcc import targets as known

    rows = [
        {
            "name": t.name,
            "needs": t.needs,
            "isas": [v.name for v in t.variants],
            "gpus": t.gpu_code,
            "notes": {v.name: v.note for v in t.variants if v.note},
            "proof": t.proof,
            "library": t.library,
            "triple": t.zig_triple,
        }
        for t in known.TARGETS.values()
    ]
    if as_json:
        _print_json({"targets": rows})
    else:
        _print(report.targets_table(tuple(known.TARGETS.values())))


@app.command(epilog="Examples: `bitcc doctor`, `bitcc doctor --target arm64`")
def doctor(
    target: Annotated[
        str | None, typer.Option(help="Build its library, and say which kernels it takes on which CPU.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what this machine has, which kernels it would run, and whether the toolchain works."""
    from bitcc import doctor as medicine
    from bitcc import report

    with _progress() as say:
        checks = medicine.examine(lambda step: say(step, 0, 0), target)
    good = all(check.ok for check in checks)
    if as_json:
        _print_json({"ok": good, "checks": [asdict(check) for check in checks]})
    else:
        _print(report.checks_table(checks))
    if not good:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; errors of ours become two lines and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not have the letters of a name
    try:
        app()
    except BitccError as error:
        _error(str(error), error.hint)
        sys.exit(error.exit_code)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress line on stderr, only where a person looks at it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def say(what: str, done: int, count: int) -> None:
            bar.update(task, description=what, completed=done, total=count or None)

        yield say


def _print(what: Any) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False, markup=False, emoji=False).print(what)


def _print_json(data: Any) -> None:
    print(json_text.dumps(data))


def _verdict(certificate: dict[str, Any]) -> str:
    errors = {"with the library": certificate["max_error_library"], "without": certificate["max_error_body"]}
    figures = ", ".join(f"{error:.1e} of max|y| {how}" for how, error in errors.items() if error is not None)
    measured = f"{figures} ({certificate['inputs']})" if figures else ""
    return (
        f"verification {certificate['status']}: {'; '.join(filter(None, [measured, certificate['reason']]))}"
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BitccError(f"cannot write: {error.strerror}", where=f"`{path}`") from error


def _nothing_found(what: str, hint: str, layers: Sequence[LayerFacts]) -> None:
    if all(layer.scheme == "dense" for layer in layers):
        hint += "; one that was trained ternary has to be exported with its weight quantizers, or merged ones"
    _error(what, hint)
    raise typer.Exit(NOTHING_FOUND)


def _error(problem: str, hint: str) -> None:
    print(f"error: {problem}", file=sys.stderr)
    if hint:
        print(f"\nhint: {hint}", file=sys.stderr)


if __name__ == "__main__":
    main()
