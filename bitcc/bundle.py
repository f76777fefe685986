"""The output of a compilation: a folder that appears whole or not at all, and its checked reader.

bundle/  model.onnx  model.onnx.data  libbitcc_ops.so  bitcc.json
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitcc import json_text
from bitcc.digest import sha256
from bitcc.errors import BundleError
from bitcc.facts import KEPT, PACKED, LayerFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMAT = 1
MANIFEST = "bitcc.json"
MODEL = "model.onnx"
DATA = "model.onnx.data"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux


@dataclass(frozen=True)
class TargetEntry:
    """One library of a bundle.

    Attributes:
        name: The target.
        library: Path of the library in the bundle.
        sha256: Its digest.
        isas: Its instruction-set variants, best first.
        gpus: What it has for GPUs: ``sm_90`` and the like, and ``compute_90`` for what newer ones translate.
    """

    name: str
    library: str
    sha256: str
    isas: tuple[str, ...]
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What ``bitcc.json`` says; other tools read it.

    Attributes:
        bitcc: Version of the compiler.
        source: ``name`` and ``sha256`` of the model file.
        files: Digest of every other file of the bundle, by path.
        targets: The libraries.
        layers: One entry for each place where the source model multiplies by a constant matrix.
        verify: ``status`` (``passed``, ``failed`` or ``not run``), ``reason``, and what was measured.
        versions: Of the tools whose work is in the bundle.
    """

    bitcc: str
    source: dict[str, str]
    files: dict[str, str]
    targets: tuple[TargetEntry, ...]
    layers: tuple[LayerFacts, ...]
    verify: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of ``bitcc.json``; the same manifest gives the same bytes."""
        return json_text.dumps({"format": FORMAT, **asdict(self)}) + "\n"


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
            BundleError: a file is not what the compiler wrote.
        """
        digests = {**self.manifest.files, **{t.library: t.sha256 for t in self.manifest.targets}}
        for name, digest in digests.items():
            if sha256(self.path / name) != digest:
                raise BundleError(
                    f"`{name}` is not what bitcc wrote",
                    where=f"bundle `{self.path}`",
                    hint="copy the bundle again, or compile the model again",
                )


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
        raise BundleError(
            f"`{MANIFEST}` cannot be read", where=where, hint="give the folder that `bitcc compile` made"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"`{MANIFEST}` is damaged: {error}", where=where) from error
    manifest = _parse(raw, where)
    for name in (*manifest.files, *(t.library for t in manifest.targets)):
        if not _is_inside(folder, name):
            raise BundleError(f"`{name}` is missing", where=where, hint="copy the whole folder")
    return Bundle(folder, manifest)


def _is_inside(folder: Path, name: str) -> bool:
    try:
        file = (folder / name).resolve()
        return file.is_relative_to(folder.resolve()) and file.is_file()
    except (OSError, ValueError):  # no file can be called that
        return False


def _parse(raw: Any, where: str) -> Manifest:
    if not isinstance(raw, dict) or "format" not in raw:
        raise BundleError(f"`{MANIFEST}` is not a manifest of bitcc", where=where)
    if raw["format"] != FORMAT:
        raise BundleError(
            f"its format is {raw['format']!r}; this bitcc reads {FORMAT}",
            where=where,
            hint="update bitcc, or compile the model again",
        )
    try:
        return Manifest(
            bitcc=str(raw["bitcc"]),
            source=_strings(raw["source"]),
            files=_strings(raw["files"]),
            targets=tuple(map(_target, raw["targets"])),
            layers=tuple(_layer(entry) for entry in raw["layers"]),
            verify=dict(raw["verify"]),
            versions=_strings(raw["versions"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"`{MANIFEST}` is damaged: {error!r}", where=where) from error


def _target(raw: Any) -> TargetEntry:
    return TargetEntry(
        name=str(raw["name"]),
        library=str(raw["library"]),
        sha256=str(raw["sha256"]),
        isas=tuple(map(str, raw["isas"])),
        gpus=tuple(map(str, raw.get("gpus", ()))),  # older bundles do not say
    )


def _strings(raw: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in raw.items()}


def _layer(raw: Any) -> LayerFacts:
    known = {f.name: str(f.type).split(" | ") for f in fields(LayerFacts)}
    facts: dict[str, Any] = {key: value for key, value in raw.items() if key in known}
    for key in {"levels", "shares"} & facts.keys():
        facts[key] = tuple(facts[key])
    for key, value in facts.items():
        if not any(_JSON_TYPES[name](value) for name in known[key]):
            raise TypeError(f"`{key}` of a layer is {value!r}")
    return LayerFacts(**facts)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


_JSON_TYPES: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int),
    "float": _is_number,
    "None": lambda value: value is None,
    "tuple[float, ...]": lambda value: isinstance(value, tuple) and all(map(_is_number, value)),
}


@contextmanager
def writing(output: Path, *, force: bool) -> Iterator[Path]:
    """A staging folder beside ``output`` that takes its place when the block ends without an error.

    Raises:
        BundleError: ``output`` exists and ``force`` is not set, or the disk does not let us.
    """
    where = f"`{output}`"
    if output.exists() and not force:
        raise BundleError("it exists", where=where, hint="use --force to replace it, or give another folder")
    if output.exists() and not (output / MANIFEST).is_file():
        problem = "it exists and is not a bundle, so --force does not replace it"
        raise BundleError(problem, where=where, hint="give another folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        problem = f"cannot write there: {error.strerror}"
        raise BundleError(problem, where=where, hint="give another folder") from error
    try:
        yield staging
        staging.chmod(0o755)
        _publish(staging, output)
    except OSError as error:
        raise BundleError(
            f"cannot write the bundle: {error.strerror or error}",
            where=where,
            hint="nothing was left behind; free some space or give another folder",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, output: Path) -> None:
    """Let the staging folder take the place of ``output``, at once where the system can exchange folders."""
    if not output.exists():
        staging.rename(output)
        return
    if _exchanged(staging, output):
        return  # the staging folder is the old bundle now, and the caller removes it
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
    try:
        output.rename(old / "bundle")
        try:
            staging.rename(output)
        except OSError:
            (old / "bundle").rename(output)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether Linux exchanged two folders: no moment is without the one or the other."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    here = ctypes.c_int(_AT_FDCWD)
    done: int = renameat2(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE))
    return done == 0  # not every file system can
