"""A whole model before and after: how long a run takes, what is on disk, and where the time goes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import onnxruntime as ort

from bitcc import bundle as bundles
from bitcc import ops, paths, runtime, source, ternary_linear, verify
from bitcc.bench import machine, profile
from bitcc.bench.models import session_options
from bitcc.bench.rounds import Pace, Spread, interleave, ratio, spread
from bitcc.errors import ModelError, first_line
from bitcc.verify.outputs import flat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bitcc.bench.machine import Machine
    from bitcc.bundle import Bundle
    from bitcc.verify.inputs import Feeds
    from bitcc.verify.outputs import Outputs

    Open: TypeAlias = Callable[[ort.SessionOptions], ort.InferenceSession]

_PROFILED_RUNS = 10
_PACKED_OPS = frozenset({ops.BIT_LINEAR, ternary_linear.TERNARY_LINEAR})
COMPILED, ORIGINAL = "compiled", "original"


@dataclass(frozen=True)
class ModelTiming:
    """One of the two models.

    Attributes:
        name: ``compiled`` or ``original``.
        seconds: For one run.
        ops: Where the time of a run goes, slowest first, by the profiler of onnxruntime.
        disk_bytes: Of the model and its external data.
    """

    name: str
    seconds: Spread
    ops: tuple[profile.OpTime, ...]
    disk_bytes: int


@dataclass(frozen=True)
class ModelBench:
    """The whole benchmark.

    Attributes:
        machine: Where it ran.
        threads: Of the sessions; 0 is onnxruntime's default.
        inputs: Shapes of the inputs, by name.
        rounds: Rounds of timing.
        compiled: The compiled model.
        original: The original; None if it was not given.
        library_bytes: Size of the op library, which the compiled model needs too.
        ratio: The original's time over the compiled model's in the same round, the median over the rounds.
        difference: The largest difference of the outputs relative to max|y|.
        layers: The BitLinear and TernaryLinear nodes of the compiled model.
    """

    machine: Machine
    threads: int
    inputs: dict[str, tuple[int, ...]]
    rounds: int
    compiled: ModelTiming
    original: ModelTiming | None
    library_bytes: int
    ratio: float | None
    difference: float | None
    layers: tuple[profile.NodeTime, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: dictionaries, lists, strings and numbers only."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def run(
    bundle: Bundle | Path,
    original: Path | None = None,
    *,
    feeds: Feeds | None = None,
    dims: Mapping[str, int] | None = None,
    threads: int = 0,
    pace: Pace | None = None,
    gpu: str = "",
) -> ModelBench:
    """Time a bundle, against its original if that is given, with onnxruntime's default optimizations.

    Args:
        bundle: The bundle, or its folder.
        original: The model that it was compiled from.
        feeds: Inputs by name; default: random ones.
        dims: Sizes of the dynamic dimensions of random inputs, by their name in the model; others are 4.
        threads: Of the sessions; 0 is onnxruntime's default.
        pace: How long to measure.
        gpu: Name of the GPU to run both on, which includes copies of inputs and outputs; empty for the CPU.

    Raises:
        BundleError: the bundle is damaged, or has no library for this machine.
        ModelError: the original cannot be run, or a dimension of that name does not exist.
    """
    opened = bundles.read(bundle) if not isinstance(bundle, bundles.Bundle) else bundle
    providers: tuple[str, ...] = runtime.WITH_CUDA if gpu else runtime.CPU
    models = {COMPILED: _Model(opened.model, lambda options: runtime.session(opened, options, providers))}
    if original is not None:
        models[ORIGINAL] = _Model(original, lambda options: _open(original, options, providers))
    library = (
        opened.path / runtime.library_entry(opened, cuda=bool(gpu)).library
        if opened.manifest.targets
        else None
    )
    feeds = feeds or draw(models[COMPILED].open(session_options(threads)), dims or {})
    found = _measure(models, library, feeds, threads, pace or Pace())
    return replace(found, machine=replace(found.machine, gpu=gpu))


def _measure(
    models: dict[str, _Model], library: Path | None, feeds: Feeds, threads: int, pace: Pace
) -> ModelBench:
    sessions = {name: model.open(session_options(threads)) for name, model in models.items()}
    outputs = {name: _first_run(session, feeds, models[name]) for name, session in sessions.items()}
    samples = interleave({name: _call(session, feeds) for name, session in sessions.items()}, pace)
    del sessions  # and their threads, before others are profiled
    nodes = {name: model.profiled(threads, feeds) for name, model in models.items()}
    timings = {name: model.timing(name, samples[name], nodes[name]) for name, model in models.items()}
    both = ORIGINAL in models
    return ModelBench(
        machine=machine.describe(library),
        threads=threads,
        inputs={name: array.shape for name, array in feeds.items()},
        rounds=pace.rounds,
        compiled=timings[COMPILED],
        original=timings.get(ORIGINAL),
        library_bytes=library.stat().st_size if library else 0,
        ratio=ratio(samples[ORIGINAL], samples[COMPILED]) if both else None,
        difference=verify.distance(outputs[COMPILED], outputs[ORIGINAL]) if both else None,
        layers=tuple(node for node in nodes[COMPILED] if node.op in _PACKED_OPS),
    )


@dataclass(frozen=True)
class _Model:
    """A file, and how to open it."""

    path: Path
    open: Open

    def profiled(self, threads: int, feeds: Feeds) -> tuple[profile.NodeTime, ...]:
        return profile.node_times(self.open, session_options(threads), feeds, _PROFILED_RUNS)

    def timing(self, name: str, samples: Sequence[float], nodes: tuple[profile.NodeTime, ...]) -> ModelTiming:
        return ModelTiming(name, spread(samples), profile.by_op(nodes), disk_bytes(self.path))


def draw(session: ort.InferenceSession, dims: Mapping[str, int]) -> Feeds:
    """Random inputs, with the given sizes of dynamic dimensions.

    Raises:
        ModelError: an input cannot be drawn, or no dimension has that name.
    """
    inputs = session.get_inputs()
    names = sorted({d for value in inputs for d in value.shape if isinstance(d, str)})
    for unknown in dims.keys() - set(names):
        known = ", ".join(f"`{name}`" for name in names) or "none"
        raise ModelError(f"no input has a dynamic dimension `{unknown}`", hint=f"there is {known}")
    sized = [
        SimpleNamespace(name=v.name, type=v.type, shape=[dims.get(d, d) for d in v.shape]) for v in inputs
    ]
    return verify.random_inputs(SimpleNamespace(get_inputs=lambda: sized))


def disk_bytes(model: Path) -> int:
    """The size of a model with the files of its external data."""
    graph = source.load(model)
    data = {(model.parent / tensor.location) for tensor in source.external_tensors(graph)}
    return model.stat().st_size + sum(file.stat().st_size for file in data)


def _open(model: Path, options: ort.SessionOptions, providers: tuple[str, ...]) -> ort.InferenceSession:
    path = paths.for_onnxruntime(model)
    try:
        return ort.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(f"onnxruntime cannot load it: {first_line(error)}", where=f"`{model}`") from error


def _first_run(session: ort.InferenceSession, feeds: Feeds, model: _Model) -> Outputs:
    try:
        return flat(session.run(None, feeds))
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(
            f"it does not run on these inputs: {first_line(error)}",
            where=f"`{model.path}`",
            hint="give inputs with --inputs FILE.npz, or sizes of dynamic dimensions with --dim NAME=SIZE",
        ) from error


def _call(session: ort.InferenceSession, feeds: Feeds) -> Callable[[], None]:
    return lambda: session.run(None, feeds)
