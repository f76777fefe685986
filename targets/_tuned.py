"""Tuning as the rest of bitcc asks for it: the tiles of one variant, found here or on another machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitcc.errors import TargetError
from bitcc.targets._base import Shim
from bitcc.targets._build import importing_tvm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bitcc.targets._base import Target, Tiles, Variant


@dataclass(frozen=True)
class Change:
    """What was found for one kernel.

    Attributes:
        kernel: Its family, and the number of tokens where there is a walk for each.
        before: The sizes that the variant has, in words.
        after: Those that are fastest; the same if nothing was faster by the margin.
        ratio: Time before over time after, in the same round; 1 if nothing was faster.
    """

    kernel: str
    before: str
    after: str
    ratio: float


@dataclass(frozen=True)
class Remote:
    """A machine that runs an RPC server of TVM.

    Attributes:
        host: Of the server, or of the tracker if there is a key.
        port: The same.
        key: By which the tracker knows the machine; empty for a server.
    """

    host: str
    port: int
    key: str = ""


def tune_variant(
    target: Target,
    isa: str,
    *,
    sources: Sequence[Path],
    include: Path,
    version: str,
    seconds: float,
    remote: Remote | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Tiles, tuple[Change, ...]]:
    """The fastest tiles of a variant and what changed, from a search that takes minutes.

    Args:
        target: The target.
        isa: The name of its variant.
        sources: The C files that time kernels; the headers beside them may be included too.
        include: Folder of `bitcc/kernel.h`.
        version: Of bitcc.
        seconds: To spend on measuring; compiling comes on top of it.
        remote: Where to measure; None for this machine.
        progress: Called with a few words when a step starts.

    Raises:
        TargetError: there is no such variant, the machine cannot run it or be reached, or a candidate
            computes wrong numbers.
    """
    variant = _variant(target, isa)
    with importing_tvm(target):  # which takes seconds
        from bitcc.targets import _machine, _measure, _tune  # noqa: PLC0415

    with _machine.connect(remote) as load:
        workshop = _measure.Workshop(target, variant, Shim(tuple(sources), include, version), load)
        tiles, changes = _tune.tune(variant, workshop, seconds, progress=progress)
    return tiles, tuple(changes)


def _variant(target: Target, isa: str) -> Variant:
    for variant in target.variants:
        if variant.name == isa:
            return variant
    names = ", ".join(f"`{variant.name}`" for variant in target.variants)
    raise TargetError(f"target `{target.name}` has no ISA `{isa}`", hint=f"choose one of {names}")
