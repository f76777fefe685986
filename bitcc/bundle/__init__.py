"""The output of a compilation: a folder that appears whole or not at all, and its checked reader.

bundle/  model.onnx  model.onnx.data  libbitcc_ops.so  bitcc.json
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitcc import json_text
from bitcc.bundle.manifest import MANIFEST, Manifest, TargetEntry, parse
from bitcc.bundle.staging import writing
from bitcc.digest import sha256
from bitcc.errors import BundleError
from bitcc.facts import KEPT, PACKED, LayerFacts

if TYPE_CHECKING:
    import os

__all__ = ["DATA", "MANIFEST", "MODEL", "Bundle", "Manifest", "TargetEntry", "read", "writing"]

MODEL = "model.onnx"
DATA = "model.onnx.data"


@dataclass(frozen=True, repr=False)
class Bundle:
    """A bundle on disk.

    Attributes:
        path: Its folder.
        manifest: What is in it.
    """

    path: Path
    manifest: Manifest

    def __repr__(self) -> str:
        targets = ", ".join(entry.name for entry in self.manifest.targets) or "no target"
        layers = f"{len(self.packed)} of {len(self.manifest.layers)} layers packed"
        return f"<Bundle {str(self.path)!r}: {layers}, for {targets}>"

    @property
    def model(self) -> Path:
        """The compiled model."""
        return self.path / MODEL

    @property
    def packed(self) -> tuple[LayerFacts, ...]:
        """The layers that were packed."""
        return tuple(layer for layer in self.manifest.layers if layer.status == PACKED)

    @property
    def kept(self) -> tuple[LayerFacts, ...]:
        """The layers that stayed as they were, with the reason."""
        return tuple(layer for layer in self.manifest.layers if layer.status == KEPT)

    def library(self, target: str) -> Path:
        """The library for a target.

        Raises:
            BundleError: the bundle has none.
        """
        return self.path / self.entry(target).library

    def entry(self, *targets: str) -> TargetEntry:
        """The library for the first of these targets that there is one for.

        Raises:
            BundleError: the bundle has none.
        """
        by_name = {entry.name: entry for entry in self.manifest.targets}
        for target in targets:
            if target in by_name:
                return by_name[target]
        names = ", ".join(by_name) or "no target"
        raise BundleError(
            f"it holds a library for {names}, not for {targets[0]}",
            where=f"bundle `{self.path}`",
            hint=f"compile the model again with --target {targets[0]}",
        )

    def check_digests(self) -> None:
        """Compare every file with the digest that was written beside it.

        Raises:
            BundleError: a file is not what the compiler wrote, or cannot be read.
        """
        for name in (*self.manifest.files, *(entry.library for entry in self.manifest.targets)):
            self.check_digest(name)

    def check_digest(self, name: str) -> None:
        """Compare one file with the digest that was written beside it.

        Raises:
            BundleError: it is not what the compiler wrote, or cannot be read.
        """
        where, hint = f"bundle `{self.path}`", "copy the bundle again, or compile the model again"
        of_libraries = {entry.library: entry.sha256 for entry in self.manifest.targets}
        try:
            found = sha256(self.path / name)
        except OSError as error:  # it was there when the bundle was read
            problem = f"`{name}` cannot be read: {error.strerror}"
            raise BundleError(problem, where=where, hint=hint) from error
        if found != {**self.manifest.files, **of_libraries}[name]:
            raise BundleError(f"`{name}` is not what bitcc wrote", where=where, hint=hint)


def read(path: str | os.PathLike[str]) -> Bundle:
    """Open a bundle: its manifest is checked, and that every file is there.

    Raises:
        BundleError: it is no bundle, is damaged, or was written by a newer bitcc.
    """
    folder = Path(path)
    where = f"bundle `{folder}`"
    try:
        raw = json_text.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        hint = "give the folder that `bitcc compile` made"
        raise BundleError(_why_unread(folder), where=where, hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"`{MANIFEST}` is damaged: {error}", where=where) from error
    manifest = parse(raw, where)
    if MODEL not in manifest.files:
        raise BundleError(f"`{MANIFEST}` is damaged: it does not know `{MODEL}`", where=where)
    for name in (*manifest.files, *(t.library for t in manifest.targets)):
        if not _is_inside(folder, name):
            raise BundleError(f"`{name}` is missing", where=where, hint="copy the whole folder")
    return Bundle(folder, manifest)


def _why_unread(folder: Path) -> str:
    with suppress(OSError):  # a name that is too long, a folder that may not be entered
        if folder.is_file():
            return "it is a file, and a bundle is a folder"
        if not folder.exists():
            return "there is no such folder"
    return f"`{MANIFEST}` cannot be read"


def _is_inside(folder: Path, name: str) -> bool:
    try:
        file = (folder / name).resolve()
        return file.is_relative_to(folder.resolve()) and file.is_file()
    except (OSError, ValueError):  # no file can be called that
        return False
