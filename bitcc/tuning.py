"""Finding the tile sizes that are fastest on a machine, and the file that keeps them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bitcc import host, libraries, runtime_ops, targets
from bitcc.errors import TargetError
from bitcc.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        isa: The variant.
        changes: One for each kernel, also where nothing was faster.
        file: What to store for builds.
    """

    isa: str
    changes: tuple[targets.Change, ...]
    file: targets.TileFile

    def to_dict(self) -> dict[str, Any]:
        """For JSON: dictionaries, lists, strings and numbers only."""
        changes = [asdict(change) for change in self.changes]
        return {"target": self.file.target, "machine": self.file.machine, "isa": self.isa, "kernels": changes}


def tune(
    target: str | None = None,
    isa: str | None = None,
    *,
    seconds: float,
    remote: targets.Remote | None = None,
    progress: Callable[[str], None] | None = None,
) -> Tuned:
    """Search the tiles of one variant.

    Args:
        target: The target; None for this machine's.
        isa: The variant; None for the one that runs here, ``BITCC_ISA`` respected.
        seconds: To spend on measuring; compiling comes on top of it.
        remote: Where to measure; None for this machine.
        progress: Called with a few words when a step starts.

    Raises:
        TargetError: there is no such target or variant, or the machine cannot run it or be reached.
    """
    name = target or libraries.host_target()
    targets.get(name)
    if remote is None and name not in libraries.host_targets():
        raise TargetError(
            f"this machine ({libraries.host_target()}) cannot run {name}, so nothing can be measured here",
            hint="give --rpc HOST:PORT, a machine that can",
        )
    if remote is not None and isa is None:
        raise TargetError("which kernels to tune on another machine has to be said", hint="give --isa")
    chosen = isa or runtime_ops.library_info(libraries.library_path(name, progress)).selected
    if chosen is None:
        raise TargetError(f"no variant of target `{name}` runs here", hint="look at `bitcc doctor`")
    tiles, changes = targets.tune_variant(
        targets.get(name),
        chosen,
        sources=runtime_ops.tuner_sources(),
        include=runtime_ops.include_dir(),
        version=__version__,
        seconds=seconds,
        remote=remote,
        progress=progress,
    )
    machine = host.cpu_name() if remote is None else f"{remote.host}:{remote.port} {remote.key}".strip()
    return Tuned(chosen, changes, targets.TileFile(name, machine, {chosen: tiles}))
