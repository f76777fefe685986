"""The one thing that the rest of bitcc asks of a target: its library."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bitcc.errors import TargetError
from bitcc.targets import _cache
from bitcc.targets._base import Shim
from bitcc.targets._link import link

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bitcc.targets._base import Target, Variant


def check_tools(target: Target, *, sources: Sequence[Path], include: Path, version: str) -> None:
    """Whether the library of `target` is there or could be begun.

    Raises:
        TargetError: a tool is not installed, or the cache folder cannot be made.
    """
    _cache.key(target, Shim(tuple(sources), include, version))
    _cache.root()


def build_library(
    target: Target,
    *,
    sources: Sequence[Path],
    include: Path,
    version: str,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """The library of `target`, from the cache if it is there.

    Args:
        target: What to build for.
        sources: The C files; the headers beside them may be included too.
        include: Folder of `bitcc/kernel.h`.
        version: Of bitcc; two versions never share a library.
        progress: Called with a few words, such as ``avx2: gemv``, when a step starts. Not called
            when the library is in the cache.

    Raises:
        TargetError: the library cannot be built.
    """
    shim = Shim(tuple(sources), include, version)
    entry = _cache.key(target, shim)
    cached = _cache.find(target.library, entry)
    if cached is not None:
        return cached
    say = progress or (lambda _: None)
    root = _cache.root()
    with _cache.writing(root), tempfile.TemporaryDirectory(dir=root, prefix="build-") as name:
        directory = Path(name)
        objects = []
        for variant in target.variants:
            objects.append(directory / f"{variant.name}.o")
            _write(target, variant, objects[-1], say)
        say("linking")
        library = link(target, objects, shim, directory, zig_cache=root / "zig")
        return _cache.publish(library, entry)


def _write(target: Target, variant: Variant, path: Path, say: Callable[[str], None]) -> None:
    # takes seconds to import, and a cached library needs none of it
    from bitcc.targets._codegen import write_object  # noqa: PLC0415

    try:
        write_object(target, variant, path, say)
    except ValueError as error:  # of tiles from a file
        raise TargetError(f"ISA {variant.name} cannot have these tiles: {error}") from error
