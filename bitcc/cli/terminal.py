"""What commands print, and where: tables and JSON on stdout, errors and progress on stderr."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from bitcc import json_text
from bitcc.errors import BitccError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bitcc.facts import LayerFacts

NOTHING_FOUND = 3
_BEGINNING = 1024  # bytes
_ENDLESS = 1 << 16  # columns


@contextmanager
def working(*, as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """The part of a command that finds out what to print; an error in it is JSON, too, if that is asked for.

    Yields:
        What shows progress: a function of (what, done, all); all is 0 where it is not known.
    """
    try:
        with _progress() as say:
            yield say
    except BitccError as error:
        if as_json:
            print_json({"error": str(error), "hint": error.hint})
        raise


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A line on stderr, only where a person looks at it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    words = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), words, BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def say(what: str, done: int, count: int) -> None:
            bar.update(task, description=printable(what), completed=done, total=count or None)

        yield say


def show(what: Any) -> None:
    """Print words or a table of rich."""
    from rich.console import Console
    from rich.segment import Segment

    class Printable:
        def __rich_console__(self, console: Any, options: Any) -> Iterator[Segment]:
            for segment in console.render(what, options):
                yield Segment(printable(segment.text), segment.style, segment.control)

    width = None if sys.stdout.isatty() else _ENDLESS  # scripts read lines
    # not cut: what a narrow terminal has no room for goes on in its next line
    Console(width=width, highlight=False, markup=False, emoji=False).print(Printable(), crop=False)


def print_json(data: Any) -> None:
    """Print data for scripts."""
    print(json_text.dumps(data), flush=True)


def check_output(path: Path, mark: bytes, what: str) -> None:
    """Find out before long work that ``write`` would fail at its end, or replace what is not its own.

    Args:
        path: The file that the user named.
        mark: What is near the beginning of every such file that was written before, and of no other.
        what: Such a file, in words.

    Raises:
        BitccError: the file cannot be written, or is another one: a model, or the data of one.
    """
    with _writing(path):
        is_new = not path.exists()
        if is_new or path.is_file() or path.is_dir():  # to open a pipe and close it would end it
            path.open("ab").close()
        if is_new:
            path.unlink()
        elif path.is_file():
            with path.open("rb") as stream:
                beginning = stream.read(_BEGINNING)
            if beginning and mark not in beginning:
                raise BitccError(
                    f"it exists and is not {what}, so it is not replaced",
                    where=f"`{path}`",
                    hint="remove it, or give another file",
                )


def write(path: Path, text: str) -> None:
    """Write a file that the user named; half of it does not stay.

    Raises:
        BitccError: it cannot be written.
    """
    # names of files may be no UTF-8
    with _writing(path), path.open("w", encoding="utf-8", errors="replace") as stream:
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            if path.is_file():
                path.unlink()
            raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BitccError(f"cannot write: {error.strerror}", where=f"`{path}`") from error


def nothing_found(what: str, hint: str, layers: Sequence[LayerFacts]) -> None:
    """Print that no layer is packed, as an error.

    Raises:
        Exit: always.
    """
    if all(layer.scheme == "dense" for layer in layers):
        hint += "; one that was trained ternary has to be exported with its weight quantizers, or merged ones"
    print_error(what, hint)
    raise typer.Exit(NOTHING_FOUND)


def print_error(problem: str, hint: str) -> None:
    """Print what is wrong, and what to do about it if that is known."""
    print(f"error: {printable(problem)}", file=sys.stderr)
    if hint:
        print(f"\nhint: {printable(hint)}", file=sys.stderr)
