"""From a model to a bundle: the whole flow in one screen, and the only module that knows all parts."""

from __future__ import annotations

import platform
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from bitcc import bundle, libraries, passes, source, targets, temporary, verify
from bitcc.bundle import Bundle, Manifest, TargetEntry
from bitcc.digest import sha256
from bitcc.errors import BitccError, ModelError, TargetError, VerificationError
from bitcc.facts import KEPT, PACKED, FormatChoice, Numerics
from bitcc.version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterable, Iterator

    from bitcc.facts import LayerFacts
    from bitcc.formats import Bytes

    Progress = Callable[[str, int, int], None]

_ALIGNMENT = 4096  # of weights in the data file: mapped pages are used in place
_MIN_EXTERNAL = 1024  # bytes; smaller tensors stay in the model file
_SPOOL = "packed.tmp"
_MAX_VERIFIED = 256 << 20  # bytes of model that are verified as a whole without being asked
_NOT_WRITTEN = (
    "nothing was written; please report the model; --no-verify (in Python verify=False) writes the bundle "
    "all the same, for looking into it"
)


@dataclass(frozen=True)
class Request:
    """What to compile for.

    Attributes:
        targets: Names of targets; None for this machine's.
        min_weights: Layers with fewer weights stay as they are; None leaves those that are faster so.
        verify: Run the whole model before and after; None to do so up to 256 MB.
        force: Replace an existing bundle.
        strict: Fail if a layer with ternary or binary weights would stay as it is.
        numerics: Of the activation quantizers of half-precision models.
        tiles: A file of tile sizes for one of the targets; None for those that come with bitcc.
        weight_format: Of layers with int8 activations; ``AUTO`` goes by targets and number of weights.
    """

    targets: tuple[str, ...] | None = None
    min_weights: int | None = None
    verify: bool | None = None
    force: bool = False
    strict: bool = False
    numerics: Numerics = Numerics.FP32
    tiles: Path | None = None
    weight_format: FormatChoice = FormatChoice.AUTO


def compile_model(
    model: str | os.PathLike[str] | ir.Model,
    output: str | os.PathLike[str],
    request: Request,
    progress: Progress | None = None,
) -> Bundle:
    """Compile a model file, or a model in memory, into the folder ``output``.

    Args:
        model: The model; one in memory is rewritten in place.
        output: The folder to make.
        request: What to compile for.
        progress: Called with (what, done, all); all is 0 where it is not known.

    Raises:
        VerificationError: the compiled model does not compute what the original does.
        BitccError: with the reason and what to do; ``output`` is then as it was before, in every case.
    """
    say = progress or (lambda _what, _done, _all: None)
    chosen = _chosen((libraries.host_target(),) if request.targets is None else request.targets)
    path = None if isinstance(model, ir.Model) else _path(model)
    tiles = _tiles_for(chosen, request.tiles)
    with bundle.writing(Path(output), force=request.force) as staging:
        loaded = model if isinstance(model, ir.Model) else source.load(_path(model))
        source.check_not_compiled(loaded, f"`{path or 'the model'}`")
        with source.reading(loaded, path):
            layers = _pack(loaded, staging, _settled(request, chosen.values()), say)
            if request.strict:
                _refuse_any_left(layers, f"`{path or 'the model'}`")
            changed = any(layer.status == PACKED for layer in layers)
            say("writing the model", 0, 0)
            _write_model(loaded, path, staging, changed=changed)
            of_source = _source(path)
        entries = [
            _add_library(name, staging, say, tiles=tiles.get(t.name), alone=len(chosen) == 1)
            for name, t in (chosen.items() if changed else ())
        ]
        manifest = Manifest(
            bitcc=__version__,
            source=of_source,
            files=_digests(staging, entries),
            targets=tuple(entries),
            layers=layers,
            versions={name: version(name) for name in ("apache-tvm", "onnx-ir", "onnxruntime", "ziglang")},
        )
        built = Bundle(staging, manifest)
        verified = _verify(built, Path(output), path, request, say)
        built = replace(built, manifest=replace(manifest, verify=verified))
        (staging / bundle.MANIFEST).write_text(built.manifest.to_json(), encoding="utf-8")
    return Bundle(Path(output), built.manifest)


def examine(
    model: str | os.PathLike[str],
    request: Request,
    progress: Progress | None = None,
) -> tuple[LayerFacts, ...]:
    """What ``compile_model`` would do with each layer; nothing is written.

    Raises:
        ModelError: the model cannot be read.
    """
    path = Path(model)
    loaded = source.load(path)
    source.check_not_compiled(loaded, f"`{path}`")
    # models are looked at on machines, too, that nothing can be compiled for
    of_host = targets.of_machine(sys.platform, platform.machine())[:1]
    chosen = [targets.get(name) for name in request.targets or ()] or of_host
    with temporary.folder() as folder, source.reading(loaded, path):
        return _pack(loaded, folder, _settled(request, chosen), progress or (lambda *_: None))


def _path(model: str | os.PathLike[str]) -> Path:
    try:
        return Path(model)
    except TypeError as error:
        raise ModelError(
            f"a model is a path or an onnx_ir.Model, not {type(model).__name__}",
            hint="give the path of its file; of an onnx.ModelProto give `onnx_ir.from_proto(model)`",
        ) from error


def _settled(request: Request, chosen: Collection[targets.Target]) -> Request:
    """`t2`, where the format is left to bitcc and a target would expand `t5`."""
    if request.weight_format is FormatChoice.AUTO and not (chosen and all(t.reads_t5 for t in chosen)):
        return replace(request, weight_format=FormatChoice.T2)
    return request


def _pack(model: ir.Model, staging: Path, request: Request, say: Progress) -> tuple[LayerFacts, ...]:
    """Run the passes; packed weights go to a file that is no part of the bundle until they are saved."""
    spool = staging / _SPOOL

    def store(data: Bytes) -> ir.TensorProtocol:
        with spool.open("ab") as stream:
            offset = stream.tell()
            stream.write(data.data)
        return ir.ExternalTensor(
            spool.name,
            offset,
            data.nbytes,
            ir.DataType.UINT8,
            shape=ir.Shape(data.shape),
            name="",
            base_dir=staging,
        )

    pack = passes.PackBitLinearPass(
        min_weights=request.min_weights,
        numerics=request.numerics,
        weight_format=request.weight_format,
        store=store,
        progress=lambda done, count, name: say(f"layer {name}", done, count),
    )
    try:
        passes.pipeline(pack)(model)
    except ir.passes.PassError as error:  # which pass it was says nothing to the user
        cause = error.__cause__ or error
        if isinstance(cause, (BitccError, OSError)):  # the disk, not the model
            raise cause from None
        raise ModelError(
            f"it cannot be compiled: {cause or repr(cause)}",
            hint="check it with `python -m onnx.checker`; if it is valid, report it with the model",
        ) from error
    layers: tuple[LayerFacts, ...] = model.meta[passes.FACTS]
    return layers


def _refuse_any_left(layers: tuple[LayerFacts, ...], where: str) -> None:
    left = [layer for layer in layers if layer.status == KEPT and layer.scheme != "dense"]
    if left:
        raise ModelError(
            f"{len(left)} layers with ternary weights would stay as they are, first `{left[0].name}`: "
            f"{left[0].reason}",
            where=where,
            hint=left[0].fix or "`bitcc inspect` lists them; without --strict the others are packed",
        )


def _write_model(model: ir.Model, path: Path | None, staging: Path, *, changed: bool) -> None:
    if not changed and path is not None:
        (staging / _SPOOL).unlink(missing_ok=True)  # of a layer that was packed and then refused
        _copy_model(model, path, staging)
        return
    with _data_moved(model, staging):
        ir.save(model, staging / bundle.MODEL)
    (staging / _SPOOL).unlink(missing_ok=True)
    (staging / bundle.DATA).touch()  # every bundle has one, also where all weights are tiny


@contextmanager
def _data_moved(model: ir.Model, staging: Path) -> Iterator[None]:
    """Large initializers are in the data file, all others in the model; strings cannot be in a data file."""
    values = [v for graph in model.graphs() for v in graph.initializers.values()]
    held = [(v, v.const_value) for v in values if v.const_value is not None]
    large = [(v, t) for v, t in held if t.dtype != ir.DataType.STRING and t.nbytes > _MIN_EXTERNAL]
    small = [(v, t) for v, t in held if isinstance(t, ir.ExternalTensor) and t.nbytes <= _MIN_EXTERNAL]
    loaded = ir.external_data.convert_tensors_from_external([t for _, t in small])
    for node in model.graph.all_nodes():
        for attribute in list(node.attributes.values()):
            if isinstance(attribute.value, ir.ExternalTensor):
                (tensor,) = ir.external_data.convert_tensors_from_external([attribute.value])
                node.attributes[attribute.name] = ir.AttrTensor(attribute.name, tensor)
    moved = ir.external_data.convert_tensors_to_external(
        [t for _, t in large], staging, bundle.DATA, alignment=_ALIGNMENT, align_threshold=_MIN_EXTERNAL
    )
    for (value, _), tensor in zip((*small, *large), (*loaded, *moved), strict=True):
        value.const_value = tensor
    try:
        yield
    finally:
        for value, held_tensor in held:
            value.const_value = held_tensor


def _copy_model(model: ir.Model, path: Path, staging: Path) -> None:
    """Byte for byte: nothing was found to change.

    Raises:
        ModelError: a data file would be a file of the bundle, also where file systems ignore case.
    """
    shutil.copyfile(path, staging / bundle.MODEL)
    for location in sorted({source.location(tensor) for tensor in source.external_tensors(model)}):
        if location.split("/")[0].casefold() in {bundle.MODEL, bundle.MANIFEST}:
            raise ModelError(
                f"its external data is called `{location}`, as a file of the bundle is",
                where=f"`{path}`",
                hint="save the model with another `location` of its data",
            )
        (staging / location).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / location, staging / location)


def _chosen(names: Iterable[str]) -> dict[str, targets.Target]:
    """The targets, by what they were asked for as; each can be built, and gets a folder of its own."""
    chosen = {name: targets.get(name) for name in names}
    if not chosen:
        raise TargetError("no target is named", hint="leave `targets` out for this machine's")
    for name, target in chosen.items():
        twice = [f"`{other}`" for other, of in chosen.items() if of.name == target.name]
        if len(twice) > 1:
            raise TargetError(
                f"{' and '.join(twice)} are one target", hint="name its GPUs together: `cuda:sm_80,sm_90`"
            )
        libraries.check(name)
    return chosen


def _tiles_for(chosen: dict[str, targets.Target], path: Path | None) -> dict[str, Path]:
    """The file of tile sizes, by the target that it is for."""
    if path is None:
        return {}
    name = targets.read_tiles(path).target
    if name not in {target.name for target in chosen.values()}:
        raise TargetError(f"it is for target `{name}`, which is not compiled for", where=f"tiles `{path}`")
    return {name: path}


def _add_library(asked: str, staging: Path, say: Progress, *, tiles: Path | None, alone: bool) -> TargetEntry:
    target = targets.get(asked)

    def progress(step: str) -> None:
        say(f"kernels for {asked}: {step}", 0, 0)

    built = libraries.library_path(asked, progress, tiles)
    name = target.library if alone else f"{target.name}/{target.library}"
    copy = staging / name
    copy.parent.mkdir(exist_ok=True)
    shutil.copyfile(built, copy)
    isas = tuple(variant.name for variant in target.variants)
    return TargetEntry(target.name, name, sha256(copy), isas, target.gpu_code)


def _source(path: Path | None) -> dict[str, str]:
    return {"name": path.name, "sha256": sha256(path)} if path else {"name": "", "sha256": ""}


def _digests(staging: Path, entries: list[TargetEntry]) -> dict[str, str]:
    libraries_ = {entry.library for entry in entries}
    files = sorted(p for p in staging.rglob("*") if p.is_file())
    names = [p.relative_to(staging).as_posix() for p in files]
    return {name: sha256(staging / name) for name in names if name not in libraries_}


def _verify(
    built: Bundle, output: Path, path: Path | None, request: Request, say: Progress
) -> dict[str, Any]:
    """What the bundle's manifest says of it; one that failed is not written.

    Raises:
        VerificationError: the compiled model does not run, or computes something else.
    """
    if request.verify is False:
        return verify.not_run("it was switched off")
    if path is None:
        return verify.not_run("the original is not a file")
    if not built.packed:
        return verify.not_run("nothing was changed")
    size = path.stat().st_size + sum(t.nbytes for t in source.external_tensors(source.load(path)))
    if request.verify is None and size > _MAX_VERIFIED:
        return verify.not_run(
            f"the model is larger than {_MAX_VERIFIED >> 20} MB; run `bitcc verify --against`"
        )
    say("verifying", 0, 0)
    try:
        certificate = verify.compare(built, path)
        verify.require(certificate)
    except VerificationError as error:  # the staging folder, which onnxruntime names, will be gone
        problem = error.problem.replace(str(built.path), str(output))
        raise VerificationError(problem, where=error.where, hint=_NOT_WRITTEN) from error
    return certificate.to_dict()
