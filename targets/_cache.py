"""Where built libraries are kept: by content, safe for many processes at once.

Layout of the folder, `BITCC_CACHE_DIR` or the user's cache folder:

    libraries/<key>.sha256        what `key`, the hash of all that goes in, was built to
    libraries/<sha256>/<library>  the library
    zig/                          the C compiler's own cache: what it makes of the libc of each system
    build-*/                      builds that are going on

A library is written before the record that names it, both by an atomic replace, and is read only
if its bytes have the hash that the record gives. So a reader sees all of it or nothing, and a
damaged file is the same as a missing one.

Records and folders carry the time of their last use. What is written removes what nobody asked for
in 30 days: libraries of other versions, and builds that were killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from bitcc.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bitcc.targets._base import Shim, Target

_LAYOUT = 1
_KEPT_UNUSED = 30 * 24 * 3600  # seconds
_TOOLS = ("apache-tvm", "apache-tvm-ffi", "ziglang")
REINSTALL = "pip install --force-reinstall bitcc: it pins the tools that work together"


def root() -> Path:
    """The cache folder, made if it is missing.

    Raises:
        TargetError: it cannot be made or written.
    """
    chosen = os.environ.get("BITCC_CACHE_DIR")
    path = (Path(chosen) if chosen else user_cache_path("bitcc")).resolve()
    try:
        (path / "libraries").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(
            f"the cache folder `{path}` cannot be made: {error.strerror}",
            hint="set BITCC_CACHE_DIR to a folder that you may write to",
        ) from error
    return path


@dataclass(frozen=True)
class Usage:
    """What the cache takes.

    Attributes:
        folder: Where it is.
        bytes: The size of all files in it.
        libraries: How many libraries it holds, those of other versions and targets too.
    """

    folder: Path
    bytes: int
    libraries: int


def usage() -> Usage:
    """What the cache takes now.

    Raises:
        TargetError: its folder cannot be made.
    """
    folder = root()
    sizes = []
    for parent, _, names in os.walk(folder):  # which passes over folders that are gone
        for name in names:
            with suppress(OSError):  # of a build that has just ended
                sizes.append((Path(parent) / name).stat().st_size)
    return Usage(folder, sum(sizes), sum(1 for _ in (folder / "libraries").glob("*.sha256")))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the disk refuses in the block becomes an error that names the cache folder.

    Raises:
        TargetError: the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"the cache folder `{folder}` cannot be written: {error.strerror or error}",
            hint="set BITCC_CACHE_DIR to a folder that you may write to",
        ) from error


def key(target: Target, shim: Shim, compiler: str = "") -> str:
    """The hash, in hex, of everything that the library is made from.

    Args:
        target: What it is for.
        shim: The C of it.
        compiler: Which one compiles the CUDA kernels, if there are any.

    Raises:
        TargetError: a C file cannot be read, or a tool is not installed.
    """
    here = Path(__file__).parent
    try:
        parts = {
            "layout": _LAYOUT,
            "bitcc": shim.version,
            "tools": {tool: installed(tool) for tool in _TOOLS},
            "cuda": compiler,
            "target": _describe(target),
            "generator": _hashes(here, sorted([*here.glob("*.py"), *here.glob("*.h")])),
            "include": _hashes(shim.include, filter(Path.is_file, shim.include.rglob("*"))),
            "sources": [(path.name, _sha256(path)) for path in shim.files()],
        }
    except OSError as error:
        raise TargetError(
            f"`{error.filename}` cannot be read: {error.strerror}",
            where=f"target `{target.name}`",
        ) from error
    except PackageNotFoundError as error:
        raise TargetError(
            f"`{error.name}` is not installed, and building a library needs it",
            where=f"target `{target.name}`",
            hint=REINSTALL,
        ) from error
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find(name: str, entry: str) -> Path | None:
    """The library file `name` of the cache entry, or None if it is missing or damaged."""
    libraries = root() / "libraries"
    record = libraries / f"{entry}.sha256"
    try:
        digest = record.read_text(encoding="ascii")
        path = libraries / digest / name
        _used(record, path.parent)
        return path if _sha256(path) == digest else None
    except (OSError, ValueError):  # ValueError: the record is not a name
        return None


def publish(built: Path, *entries: str) -> Path:
    """Move the library `built`, which lies inside the cache folder, into cache entries."""
    libraries = root() / "libraries"
    digest = _sha256(built)
    path = libraries / digest / built.name
    path.parent.mkdir(exist_ok=True)
    built.replace(path)
    with tempfile.TemporaryDirectory(dir=root(), prefix="build-") as directory:
        for entry in entries:
            record = Path(directory, "record")
            record.write_text(digest, encoding="ascii")
            record.replace(libraries / f"{entry}.sha256")
    _used(path.parent)
    _remove_unused(root())
    return path


def _used(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):  # a cache that may only be read
            os.utime(path)


def _remove_unused(folder: Path) -> None:
    """Another process may do the same, or have one of them open: what cannot be removed stays."""
    oldest = time.time() - _KEPT_UNUSED
    for path in (*(folder / "libraries").iterdir(), *folder.glob("build-*")):
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _describe(value: Any) -> Any:
    """Plain data that tells one target or variant from another."""
    if is_dataclass(value):
        values = {field.name: _describe(getattr(value, field.name)) for field in fields(value)}
        return {"": type(value).__name__, **values}
    if isinstance(value, tuple):
        return [_describe(item) for item in value]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value


def _hashes(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Names below `folder` and contents."""
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
