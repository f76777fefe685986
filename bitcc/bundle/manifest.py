"""``bitcc.json``: what is in a bundle, for us and for other tools."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from bitcc import json_text
from bitcc.errors import BundleError
from bitcc.facts import LayerFacts

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = 1
MANIFEST = "bitcc.json"


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
        verify: ``status`` (``passed``, ``partly passed`` or ``not run``; older bitcc wrote ``failed``, too),
            ``reason``, and what was measured.
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


def parse(raw: Any, where: str) -> Manifest:
    """The manifest that the JSON values of a ``bitcc.json`` say.

    Raises:
        BundleError: they are not of this format, or damaged; ``where`` is in the message.
    """
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
            raise TypeError(f"`{key}` of a layer is {value!r:.99}")
    return LayerFacts(**facts)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and abs(value) < 1 << 63


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_int(value)


_JSON_TYPES: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": _is_int,
    "float": _is_number,
    "None": lambda value: value is None,
    "tuple[float, ...]": lambda value: isinstance(value, tuple) and all(map(_is_number, value)),
}
