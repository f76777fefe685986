"""Tile sizes in a file: what `bitcc tune` found on a machine, for builds that are given the file.

Such as {"format": 1, "target": "x86-64", "machine": "...", "tiles": {"avx2": {"gemv": {"tiles": 4, ...}}}}.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from bitcc.errors import TargetError
from bitcc.targets._base import Tiles, Walk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bitcc.targets._base import Target

FORMAT = 1
_HINT = "make the file again with `bitcc tune`"
# The least and the most of each number; what kernel.h allows, and what the code generator takes seconds for.
_LIMITS = {
    "tiles": (1, 64),
    "unroll": (1, 4),
    "chains": (1, 4),
    "prefetch": (0, 1 << 16),
    "gemm_tokens": (1, 64),
    "gemm_unit": (1, 16),
    "panel_tiles": (1, 4),
    "panel_vectors": (4, 64),
    "few_blocks": (1, 64),
}
_WALKS = {"gemv", "gemv_t5", "gemm_few", "gemm_pairs", "gemm", "gemv_float"}
_FEW_WALKS = (2, 63)
_PAIR_WALKS = (2, 15)
_MOST_ACCUMULATORS = 64  # tiles times tokens times chains of a loop

MARK = b'\n "target": "'
"""Near the beginning of every file of tile sizes."""


@dataclass(frozen=True)
class TileFile:
    """Tile sizes of some variants of a target.

    Attributes:
        target: Its name.
        machine: On what they were found.
        tiles: By the name of the variant.
    """

    target: str
    machine: str
    tiles: Mapping[str, Tiles]

    def to_json(self) -> str:
        """The text of the file."""
        tiles = {isa: asdict(sizes) for isa, sizes in self.tiles.items()}
        data = {"format": FORMAT, "target": self.target, "machine": self.machine, "tiles": tiles}
        return json.dumps(data, indent=1) + "\n"

    def apply(self, target: Target) -> Target:
        """The target with these tiles in place of its own.

        Raises:
            TargetError: it is another target, or has no such variant.
        """
        if target.name != self.target:
            raise TargetError(f"the tiles are for target `{self.target}`, not for `{target.name}`")
        known = {variant.name: variant for variant in target.variants}
        for isa, tiles in self.tiles.items():
            if isa not in known:
                names = ", ".join(f"`{name}`" for name in known)
                raise TargetError(f"the tiles are for ISA `{isa}`; target `{target.name}` has {names}")
            if tiles.gemm_unit != known[isa].tiles.gemm_unit:
                unit = known[isa].tiles.gemm_unit
                raise TargetError(f"`gemm_unit` of {isa} is {tiles.gemm_unit}, expected {unit}")
            if bool(tiles.gemm_pairs) != known[isa].kernels.has_pairs:
                wanted = "some" if known[isa].kernels.has_pairs else "none"
                found = f"{len(tiles.gemm_pairs)} walks of `gemm_pairs`"
                raise TargetError(f"there are {found} for {isa}, which needs {wanted}")
        variants = (replace(v, tiles=self.tiles.get(v.name, v.tiles)) for v in target.variants)
        return replace(target, variants=tuple(variants))


def read_tiles(path: Path) -> TileFile:
    """Read a file of tile sizes.

    Raises:
        TargetError: it cannot be read, is no such file, or holds a number that is not allowed.
    """
    where = f"tiles `{path}`"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TargetError(f"cannot be read: {error.strerror}", where=where) from error
    except (ValueError, RecursionError) as error:
        raise TargetError(f"is not JSON: {error}", where=where, hint=_HINT) from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        problem = f"is not a file of tiles in format {FORMAT}, the one that this bitcc reads"
        raise TargetError(problem, where=where, hint=_HINT)
    try:
        _only(raw, {"format", "target", "machine", "tiles"})
        tiles = {isa: _tiles(_only(sizes, _names(Tiles))) for isa, sizes in raw["tiles"].items()}
        return TileFile(str(raw["target"]), str(raw["machine"]), tiles)
    except KeyError as error:
        raise TargetError(f"`{error.args[0]}` is missing", where=where, hint=_HINT) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise TargetError(str(error), where=where, hint=_HINT) from error


def _names(kind: type[Tiles | Walk]) -> set[str]:
    return {field.name for field in fields(kind)}


def _only(raw: Any, known: set[str]) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise TypeError(f"{raw!r} is not an object")
    unknown = sorted(raw.keys() - known)
    if unknown:
        raise ValueError(f"`{unknown[0]}` is unknown; known are {', '.join(sorted(known))}")
    return raw


def _tiles(raw: dict[str, Any]) -> Tiles:
    few = raw["gemm_few"]
    if not isinstance(few, list) or not _FEW_WALKS[0] <= len(few) <= _FEW_WALKS[1]:
        raise ValueError(f"`gemm_few` is {few!r}, expected {_FEW_WALKS[0]} to {_FEW_WALKS[1]} walks")
    pairs = raw["gemm_pairs"]
    most = min(_PAIR_WALKS[1], len(few))
    if not isinstance(pairs, list) or not (pairs == [] or _PAIR_WALKS[0] <= len(pairs) <= most):
        problem = f"expected none or {_PAIR_WALKS[0]} to {most} walks, as many as of `gemm_few` at most"
        raise ValueError(f"`gemm_pairs` is {pairs!r}, {problem}")
    numbers = {name: _number(raw, name) for name in sorted(_names(Tiles) - _WALKS)}
    found = Tiles(
        gemv=_walk(raw["gemv"]),
        gemm_few=tuple(_walk(walk, tokens) for tokens, walk in enumerate(few, start=2)),
        gemm=_walk(raw["gemm"], numbers["gemm_tokens"]),
        gemv_float=_walk(raw["gemv_float"]),
        gemv_t5=_walk(raw["gemv_t5"], any_vectors=True),
        gemm_pairs=tuple(_walk(walk, tokens) for tokens, walk in enumerate(pairs, start=2)),
        **numbers,
    )
    if found.gemm_tokens % found.gemm_unit or found.panel_vectors % 4:
        problem = "not a multiple of `gemm_unit`, or `panel_vectors` not one of 4"
        raise ValueError(f"`gemm_tokens` is {found.gemm_tokens}, {problem}")
    return found


def _walk(raw: Any, tokens: int = 1, *, any_vectors: bool = False) -> Walk:
    numbers = {name: _number(_only(raw, _names(Walk)), name) for name in sorted(_names(Walk))}
    walk = Walk(**numbers)
    if walk.tiles * tokens * walk.chains > _MOST_ACCUMULATORS:
        text = f"`tiles` is {walk.tiles} for {tokens} tokens in {walk.chains} chains"
        raise ValueError(f"{text}, more than any CPU has registers for")
    if 4 % (walk.unroll if any_vectors else walk.unroll * walk.chains):
        raise ValueError(f"`unroll` times `chains` is {walk.unroll * walk.chains}, which does not divide 4")
    return walk


def _number(raw: dict[str, Any], name: str) -> int:
    value = raw[name]
    low, high = _LIMITS[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"`{name}` is {value!r}, known are {low} to {high}")
    return value
