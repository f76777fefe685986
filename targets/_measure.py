"""A library whose variants are candidates of one variant, to time them here or on another machine."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitcc.errors import TargetError
from bitcc.targets import _cache
from bitcc.targets._codegen import write_object
from bitcc.targets._link import link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bitcc.targets._base import Shim, Target, Tiles, Variant

    Load = Callable[[Path], Any]

FAMILIES = ("gemv", "gemm_few", "gemm", "gemv_float", "gemv_t5", "gemm_pairs")  # as measure.c counts them
MANY = 128  # tokens that `gemm` is timed with
_FINE, _NOT_HERE = 0, 2  # of `check`


@dataclass(frozen=True)
class Case:
    """What a kernel is timed with.

    Attributes:
        tokens: How many.
        streamed: Whether the weights come from memory, not from a cache.
    """

    tokens: int
    streamed: bool


@dataclass(frozen=True)
class Bench:
    """Candidates that can be timed; they have the numbers that `Workshop.open` got them with."""

    family: int
    module: Any

    def seconds(self, candidate: int, case: Case, at_least: float) -> float:
        """Of one run over a matrix, from runs that together take `at_least` seconds.

        Raises:
            TargetError: the machine has too little memory.
        """
        arguments = (candidate, self.family, case.tokens, int(case.streamed), at_least)
        found = float(self.module["measure"](*arguments))
        if found < 0:
            raise TargetError("there is not enough memory for the matrices that are timed")
        return found


class Workshop:
    """Builds candidates of a variant; what they have in common is compiled once."""

    def __init__(self, target: Target, variant: Variant, shim: Shim, load: Load) -> None:
        self._target, self._variant, self._shim, self._load = target, variant, shim, load
        self._base: bytes | None = None

    @contextmanager
    def open(self, family: str, candidates: Sequence[Tiles], say: Callable[[str], None]) -> Iterator[Bench]:
        """Candidates that differ in one family of kernels, each tested before it may be timed.

        Raises:
            TargetError: the machine has not the instructions, a kernel computes something else, or the cache
                folder cannot be written.
        """
        variants = [
            replace(self._variant, name=f"{self._variant.name}_{i}", tiles=tiles)
            for i, tiles in enumerate(candidates)
        ]
        root = _cache.root()
        with ExitStack() as until_timed:
            with _cache.writing(root):
                name = until_timed.enter_context(tempfile.TemporaryDirectory(dir=root, prefix="build-"))
                library = self._library(family, variants, Path(name), say)
            module = self._load(library)
            for i, variant in enumerate(variants):
                self._check(module["check"](i), variant, family)
            yield Bench(FAMILIES.index(family), module)

    def _library(
        self, family: str, variants: Sequence[Variant], folder: Path, say: Callable[[str], None]
    ) -> Path:
        objects = [folder / "base.o"]
        objects[0].write_bytes(self._common(folder, say))
        for variant in variants:
            objects.append(folder / f"{variant.name}.o")
            write_object(self._target, variant, objects[-1], say, (family,))
        files = replace(self._target.files, library="libbitcc_tune.so")
        target = replace(self._target, variants=tuple(variants), files=files)
        aliases = dict(pair for variant in variants for pair in self._aliases(variant, family))
        cache = _cache.root() / "zig"
        return link(target, objects, self._shim, folder, zig_cache=cache, aliases=aliases)

    def _common(self, folder: Path, say: Callable[[str], None]) -> bytes:
        """The object of all kernels with the tiles that the variant has."""
        if self._base is None:
            write_object(self._target, self._variant, folder / "base.o", say)
            self._base = (folder / "base.o").read_bytes()
        return self._base

    def _aliases(self, variant: Variant, family: str) -> Iterator[tuple[str, str]]:
        """All other kernels of a candidate are those that they have in common."""
        for other, _ in variant.kernels:
            if other != family:
                yield variant.symbol(other), self._variant.symbol(other)

    def _check(self, verdict: int, variant: Variant, family: str) -> None:
        if verdict == _NOT_HERE:
            raise TargetError(f"the machine cannot run ISA `{self._variant.name}`")
        if verdict != _FINE:
            raise TargetError(
                f"kernel `{family}` with {variant.tiles} computes wrong numbers",
                where=f"ISA {self._variant.name}",
                hint="report this",
            )
