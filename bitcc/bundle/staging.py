"""A folder that appears whole or not at all."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from bitcc.bundle.manifest import MANIFEST
from bitcc.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux


@contextmanager
def writing(output: Path, *, force: bool) -> Iterator[Path]:
    """A staging folder beside ``output`` that takes its place when the block ends without an error.

    A link stays, and what it points to is made or replaced. Nothing is left of a block that fails.

    Raises:
        BundleError: ``output`` exists and ``force`` is not set, or the disk does not let us.
    """
    where = f"`{output}`"
    made: list[Path] = []
    try:
        place = output.resolve()
        _check_free(place, where, force=force)
        made += [folder for folder in place.parents if not folder.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = _beside(place)
    # RuntimeError: links in a circle, before Python 3.13; ValueError: a zero in the name
    except (OSError, RuntimeError, ValueError) as error:
        _remove_empty(made)
        is_in_file = isinstance(error, (FileExistsError, NotADirectoryError))
        reason = "a folder on the way is a file" if is_in_file else getattr(error, "strerror", error)
        problem = f"cannot write there: {reason}"
        raise BundleError(problem, where=where, hint="give another folder") from error
    try:
        yield staging
        _check_free(place, where, force=force)  # another process may have been faster
        _publish(staging, place)
    except OSError as error:
        raise BundleError(
            f"cannot write the bundle: {error.strerror or error}",
            where=where,
            hint="nothing was left behind; free some space or give another folder",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)


def _beside(place: Path) -> Path:
    """A new folder beside ``place`` with the rights that any new folder gets, as `mkdtemp` does not give."""
    folder = place.parent / f".{place.name}.{secrets.token_hex(4)}"
    folder.mkdir()
    return folder


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # it was not made, or holds the bundle
            folder.rmdir()


def _check_free(place: Path, where: str, *, force: bool) -> None:
    if not place.exists():
        return
    if not (place / MANIFEST).is_file():
        problem = "it exists and is not a bundle" + (", so --force does not replace it" if force else "")
        raise BundleError(problem, where=where, hint="give another folder")
    if not force:
        raise BundleError("it exists", where=where, hint="use --force to replace it, or give another folder")


def _publish(staging: Path, output: Path) -> None:
    """Let the staging folder take the place of ``output``, at once where the system can exchange folders."""
    if not output.exists():
        staging.rename(output)
        return
    if exchanged(staging, output):
        return  # the staging folder is the old bundle now, and the caller removes it
    old = _beside(output)
    try:
        output.rename(old / "bundle")
        try:
            staging.rename(output)
        except OSError:
            (old / "bundle").rename(output)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def exchanged(one: Path, other: Path) -> bool:
    """Whether Linux exchanged two folders: no moment is without the one or the other."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    here = ctypes.c_int(_AT_FDCWD)
    done: int = renameat2(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE))
    return done == 0  # not every file system can
