"""The command line: parse, call, print. Data goes to stdout, words to stderr. One file a command.

Exit codes: 0 done, 1 the input is at fault, 2 usage, 3 no BitLinear found, 4 verification failed.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bitcc.cli.bench import bench
from bitcc.cli.compile import compile  # noqa: A004 - the name of the command
from bitcc.cli.doctor import doctor
from bitcc.cli.inspect import inspect
from bitcc.cli.targets import targets
from bitcc.cli.terminal import print_error, print_json
from bitcc.cli.tune import tune
from bitcc.cli.verify import verify
from bitcc.errors import BitccError
from bitcc.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["app", "main"]

_COMMANDS: dict[Callable[..., None], str] = {  # with examples, in the order of --help
    compile: "Example: `bitcc compile model.onnx -o bundle --target x86-64`",
    inspect: "Examples: `bitcc inspect model.onnx`, `bitcc inspect model.onnx --html report.html`",
    verify: "Examples: `bitcc verify bundle --against model.onnx --inputs inputs.npz`, "
    "`bitcc verify bundle --target cuda`",
    bench: "Examples: `bitcc bench --quick`, `bitcc bench bundle --against model.onnx --dim sequence=1`, "
    "`bitcc bench --target cuda`",
    tune: "Example: `bitcc tune -o tiles.json`, then `bitcc compile model.onnx --tiles tiles.json -o bundle`",
    targets: "Example: `bitcc targets --json`",
    doctor: "Examples: `bitcc doctor`, `bitcc doctor --target arm64`",
}


_UsageError: Any = typer.BadParameter.__bases__[0]  # which Typer does not export
_AS_JSON = "bitcc.as_json"


class _Commands(TyperGroup):
    """Wrong usage is a JSON document, too, where JSON is asked for; Typer prints its words to stderr."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> Any:
        """Parse what is in front of the command."""
        as_json = "--json" in args
        with _told(as_json=as_json):
            context = super().make_context(info_name, args, *rest, **more)
        context.meta[_AS_JSON] = as_json
        return context

    def invoke(self, ctx: Any) -> Any:
        """Parse the rest, and run the command."""
        with _told(as_json=ctx.meta[_AS_JSON]):
            return super().invoke(ctx)


@contextmanager
def _told(*, as_json: bool) -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        if as_json:
            print_json({"error": error.format_message(), "hint": "see --help"})
        raise


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Compile BitNet-style ternary ONNX models: packed weights and fast kernels for onnxruntime.",
    epilog="Example: `bitcc compile model.onnx -o bundle`, then `bitcc.session('bundle')` in Python.",
)
for command, examples in _COMMANDS.items():
    app.command(epilog=examples)(command)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - as Typer calls it
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _any_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; errors of ours become two lines and an exit code."""
    # what libraries log of a broken model: our error says it
    logging.getLogger().addHandler(logging.NullHandler())
    # ends as Ctrl-C does, so that nothing half-written stays
    for name in ("SIGTERM", "SIGHUP"):  # of a terminal that is closed; Windows has no such signal
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    if sys.stdout is None:  # closed by who started us, as services are
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not have the letters of a name
    try:
        app()
    except BitccError as error:
        print_error(str(error), error.hint)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is not None:  # a bug: what other files refuse is an error of ours
            raise
        print_error(f"cannot print: {error.strerror or error}", "")
        sys.exit(1)
