"""Kernels and C sources to one shared library, by the C compiler of the `ziglang` wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from bitcc.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bitcc.targets._base import Shim, Target, Variant

_FLAGS = (
    "-std=c11",
    "-O3",
    "-shared",
    "-fvisibility=hidden",
    "-ffp-contract=off",  # results are a contract, also on CPUs that could fuse
    "-fno-math-errno",  # a square root is an instruction, and no call
    "-fno-sanitize=all",
    "-ffunction-sections",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
)
_LAST_LINES = 12


def link(
    target: Target,
    objects: Sequence[Path],
    shim: Shim,
    directory: Path,
    *,
    zig_cache: Path,
    aliases: Mapping[str, str] = MappingProxyType({}),
    images: Path | None = None,
) -> Path:
    """Make the library in `directory`, which holds `objects` and is used for everything else.

    `aliases` are kernels that the table names but no object has, and those that are there instead.
    `images` is an assembler file with what a GPU runs, for a target that has some.

    All paths that the compiler sees are relative to `directory`, so that none gets into the result
    and the same input gives the same bytes anywhere.

    Raises:
        TargetError: the compiler or the linker refuses; the hint is the end of what it said.
    """
    shutil.copytree(shim.include, directory / "include")
    (directory / "src").mkdir()
    for path in shim.files():
        shutil.copy(path, directory / "src")
    (directory / "variants.inc").write_text(variant_lines(target.variants), encoding="ascii")
    (directory / "exports.map").write_text(_exports(target.variants, aliases), encoding="ascii")
    for path in objects:
        path.write_bytes(target.files.hide(path.read_bytes()))
    # The portable object goes first: every object has weak copies of the compiler's float16
    # conversions, made for its own CPU, and the linker takes the first copy.
    inputs = [f"src/{source.name}" for source in shim.sources]
    inputs += [str(path.relative_to(directory)) for path in reversed(objects)]
    inputs += [images.name] if images else []
    flags = (
        "-Iinclude",
        "-I.",
        f'-DBITCC_VERSION="{shim.version}"',
        *(f"-D{name}={other}" for name, other in aliases.items()),
        *_FLAGS,
        *(flag.format(zig=_zig_lib(), library=target.library) for flag in target.files.flags),
        *target.flags,
    )
    command = [
        sys.executable, "-m", "ziglang", "cc", "-target", target.zig_triple,
        *flags, *inputs, *target.files.libraries, "-o", target.library,
    ]  # fmt: skip
    _run(command, directory, target, zig_cache)
    return directory / target.library


def _zig_lib() -> Path:
    return Path(str(distribution("ziglang").locate_file("ziglang/lib")))


def variant_lines(variants: Sequence[Variant]) -> str:
    """The table that kernel.h asks for, best first."""
    return "".join(
        f"BITCC_VARIANT({variant.name}, {variant.features}, "
        f"{variant.tiles.few_tokens}, {variant.tiles.gemm_tokens}, {variant.tiles.gemv_float.tiles}, "
        f"{variant.tiles.gemm_unit}, {variant.tiles.panel_tiles}, {variant.tiles.panel_vectors}, "
        f"{variant.tiles.few_blocks}, {int(variant.kernels.reads_t5)}, "
        f"{int(variant.kernels.has_pairs)}, {variant.tiles.pair_tokens})\n"
        for variant in variants
    )


def _exports(variants: Sequence[Variant], aliases: Mapping[str, str]) -> str:
    """A linker script that hides the kernels; TVM gives them default visibility."""
    kernels = {v.symbol(family) for v in variants for family, _ in v.kernels}
    names = (*sorted(kernels - aliases.keys()), "__extendhfsf2", "__truncsfhf2")
    return "{ local: " + " ".join(f"{name};" for name in names) + " };\n"


def _run(command: Sequence[str], directory: Path, target: Target, zig_cache: Path) -> None:
    """Run the compiler in `directory`."""
    # what it makes of our sources goes with the build: only what the libc of a system takes is made once
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(zig_cache), "ZIG_LOCAL_CACHE_DIR": str(directory / "zig")}
    done = subprocess.run(  # noqa: S603 - our own command
        command,
        cwd=directory,
        env=os.environ | caches,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TargetError(
            f"`{target.library}` cannot be compiled and linked",
            where=f"target `{target.name}`",
            hint="\n".join(_what_matters(done.stderr.splitlines())),
        )


def _what_matters(lines: Sequence[str]) -> Sequence[str]:
    """From the first error on; the end if no line says `error`."""
    first = next((i for i, line in enumerate(lines) if "error" in line), -_LAST_LINES)
    return lines[first:][:_LAST_LINES]
