"""The one thing that the rest of bitcc asks of a target: its library."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bitcc.errors import TargetError, first_line
from bitcc.targets import _cache, _cuda_compiler, _cuda_images
from bitcc.targets._base import Shim
from bitcc.targets._link import link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bitcc.targets._base import Target, Variant
    from bitcc.targets._cuda_compiler import Compiler


def check_tools(target: Target, *, sources: Sequence[Path], include: Path, version: str) -> None:
    """Whether the library of `target` is there or could be begun.

    Raises:
        TargetError: a tool is not installed, or the cache folder cannot be made.
    """
    compiler = _compiler(target)
    entry = _cache.key(target, Shim(tuple(sources), include, version), _version(compiler))
    _cache.root()
    if target.gpus and compiler is None and _cache.find(target.library, entry) is None:
        raise _no_compiler(target)


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
    compiler = _compiler(target)
    entry = _cache.key(target, shim, _version(compiler))
    cached = _cache.find(target.library, entry)
    if cached is not None:
        return cached
    if target.gpus and compiler is None:
        raise _no_compiler(target)
    say = progress or (lambda _: None)
    root = _cache.root()
    with _cache.writing(root), tempfile.TemporaryDirectory(dir=root, prefix="build-") as name:
        directory = Path(name)
        aliases = _shared(target)
        objects = []
        for variant in target.variants:
            objects.append(directory / f"{variant.name}.o")
            own = [family for family, _ in variant.kernels if variant.symbol(family) not in aliases]
            _write(target, variant, objects[-1], say, own)
        images = _cuda_images.write(target.gpus, compiler, directory, say) if compiler else None
        say("linking")
        library = link(
            target, objects, shim, directory, zig_cache=root / "zig", aliases=aliases, images=images
        )
        # the second is for machines without a compiler: whichever made the library last will do
        return _cache.publish(library, *{entry, _cache.key(target, shim)})


def _compiler(target: Target) -> Compiler | None:
    return _cuda_compiler.find() if target.gpus else None


def _version(compiler: Compiler | None) -> str:
    return compiler.version if compiler else ""


def _no_compiler(target: Target) -> TargetError:
    return TargetError(
        "there is no compiler for CUDA", where=f"target `{target.name}`", hint=_cuda_compiler.HINT
    )


# The code generator takes seconds to import, and a cached library needs none of it.


def _shared(target: Target) -> dict[str, str]:
    with importing_tvm(target):
        from bitcc.targets._codegen import shared  # noqa: PLC0415 - takes seconds

    return shared(target.variants)


@contextmanager
def importing_tvm(target: Target) -> Iterator[None]:
    """What tvm raises when it is imported, which is anything, becomes an error that says so.

    Raises:
        TargetError: it cannot be imported.
    """
    try:
        yield
    except Exception as error:
        raise TargetError(
            f"tvm, which builds libraries, cannot be imported: {type(error).__name__}: {first_line(error)}",
            where=f"target `{target.name}`",
            hint=_cache.REINSTALL,
        ) from error


def _write(
    target: Target, variant: Variant, path: Path, say: Callable[[str], None], families: Sequence[str]
) -> None:
    from bitcc.targets._codegen import write_object  # noqa: PLC0415

    try:
        write_object(target, variant, path, say, families)
    except ValueError as error:  # of tiles from a file
        raise TargetError(f"ISA {variant.name} cannot have these tiles: {error}") from error
