"""The op library of a target: where the C sources of one part meet the kernels of another."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

from bitcc import runtime_ops, targets
from bitcc.errors import TargetError
from bitcc.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def host_target() -> str:
    """The name of the target for the running machine, its CPU alone.

    Raises:
        TargetError: there is none.
    """
    return host_targets()[0]


def host_targets() -> tuple[str, ...]:
    """The names of all targets whose libraries load on the running machine, `host_target` first.

    Raises:
        TargetError: there is none.
    """
    system, machine = sys.platform, platform.machine()
    fitting = targets.of_machine(system, machine)
    if not fitting:
        raise TargetError(
            f"there is no target for this machine ({system}, {machine}) yet",
            hint="compile for another machine with --target; onnxruntime alone runs the model here",
        )
    return tuple(target.name for target in fitting)


def library_path(
    name: str | None = None, progress: Callable[[str], None] | None = None, tiles: Path | None = None
) -> Path:
    """The library of a target, from the cache or built now.

    Args:
        name: The target; None for this machine's.
        progress: Called with a few words when a step of building starts.
        tiles: A file of tile sizes, from ``bitcc tune``; None for those that come with bitcc.

    Raises:
        TargetError: the target is unknown, its library cannot be built, or the tiles are not for it.
    """
    target = targets.get(name or host_target())
    return targets.build_library(
        target if tiles is None else targets.read_tiles(tiles).apply(target),
        sources=runtime_ops.sources(cuda=bool(target.gpus)),
        include=runtime_ops.include_dir(),
        version=__version__,
        progress=progress,
    )


def check(name: str) -> None:
    """Whether ``library_path`` could begin, without building anything.

    Raises:
        TargetError: the target is unknown, a tool is not installed, or the cache folder cannot be made.
    """
    target = targets.get(name)
    targets.check_tools(
        target,
        sources=runtime_ops.sources(cuda=bool(target.gpus)),
        include=runtime_ops.include_dir(),
        version=__version__,
    )
