"""Run a whole model before and after, with the library and without it, and measure the difference.

The certificate has two parts. Each layer was proven on its own when it was compiled, to 1e-5 of max|y|. The
whole model is compared here: an activation code that sits on a rounding boundary can fall to the other side
by a difference in the last place of an earlier layer, so that deep models differ by more than one layer does;
the bound is for errors of meaning, and the measured figure is reported.
"""

from __future__ import annotations

import math
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnxruntime as ort

from bitcc import bundle, formats, libraries, ops, runtime, source
from bitcc.errors import ModelError, PackedWeightError, TargetError, VerificationError, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bitcc.bundle import Bundle

Feeds: TypeAlias = "dict[str, NDArray[Any]]"
Outputs: TypeAlias = "list[NDArray[Any]]"

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
TOLERANCE = 1e-2
_DYNAMIC_DIM = 4
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class Certificate:
    """What a comparison of two models found.

    Attributes:
        status: ``passed``, ``failed``, or ``not run`` if the library or both models did not run.
        reason: Why it failed or was not run.
        inputs: What the models were run on.
        tolerance: The bound on both errors, relative to max|y|.
        max_error_library: Largest difference of the original and the compiled model with the library;
            None if it did not run, as on another machine than it is for.
        max_error_body: The same without the library, through the function body.
        library_equals_body: Whether those two gave the same bits.
        onnxruntime: The version that ran them.
    """

    status: str
    reason: str = ""
    inputs: str = ""
    tolerance: float = TOLERANCE
    max_error_library: float | None = None
    max_error_body: float | None = None
    library_equals_body: bool | None = None
    onnxruntime: str = ort.__version__

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return asdict(self)


def not_run(reason: str) -> dict[str, Any]:
    """The certificate of a comparison that did not take place."""
    return Certificate(NOT_RUN, reason).to_dict()


def verify_bundle(
    path: Path,
    against: Path | None,
    inputs: Path | None,
    tolerance: float = TOLERANCE,
    target: str | None = None,
) -> Certificate:
    """Check a bundle: its files, its packed weights, and what it computes.

    Args:
        path: The bundle's folder.
        against: The original model; None to compare only the library with the function body.
        inputs: A .npz file of inputs by name; None for random ones.
        tolerance: Bound on the difference, relative to max|y|.
        target: ``cuda`` to run the library on this machine's GPU; None for its CPU.

    Raises:
        BundleError: a file is missing or not what the compiler wrote.
        PackedWeightError: a packed weight is not what its layout allows.
        ModelError: the inputs cannot be read.
        TargetError: this machine cannot run that target.
        VerificationError: the GPU does not run the bundle's layers.
    """
    built = bundle.read(path)
    gpu = runtime.check_target(target)
    built.check_digests()
    check_weights(built)
    feeds = None if inputs is None else _load_inputs(inputs)
    found = compare(built, against, feeds, tolerance, gpu=gpu)
    if found.status == NOT_RUN and found.max_error_body is None:
        raise ModelError(
            found.reason, hint="check the paths; give inputs that the model takes with --inputs FILE.npz"
        )
    return found


def check_weights(built: Bundle) -> None:
    """Unpack every packed weight of a bundle's model.

    Raises:
        PackedWeightError: one is not what its layout allows; the error names the node.
    """
    for node in source.load(built.model).graph.all_nodes():
        if node.domain != ops.DOMAIN:
            continue
        get = node.attributes
        try:
            weight = node.inputs[1]
            layout = formats.get(get.get_string("weight_format", ""), get.get_int("layout_version", 0))
            tensor = None if weight is None else weight.const_value
            data: Any = np.zeros(0) if tensor is None else tensor.numpy()
            layout.unpack(data, get.get_int("N", 0), get.get_int("K", 0))
        except PackedWeightError as error:
            where = f"node `{node.name}`"
            raise PackedWeightError(error.problem, where=where, hint=error.hint) from error
        except (TypeError, IndexError) as error:  # an attribute of another type, no second input
            raise PackedWeightError(f"it is damaged: {error}", where=f"node `{node.name}`") from error


def compare(
    built: Bundle,
    original: Path | None,
    feeds: Feeds | None = None,
    tolerance: float = TOLERANCE,
    *,
    gpu: str = "",
) -> Certificate:
    """Run the original and the bundle, with the library and without, on the same inputs.

    Args:
        built: The bundle.
        original: The model that it was compiled from; None to compare the bundle with itself.
        feeds: Inputs by name; default: small random ones.
        tolerance: Bound on the difference, relative to max|y|.
        gpu: Name of the GPU that runs the library; empty for the CPU, which runs everything else.

    Raises:
        VerificationError: the GPU does not run the bundle's layers.
    """
    described = "random inputs, seed 0" if feeds is None else "given inputs"
    reference = original or built.model
    try:
        first = _plain_session(reference)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        return Certificate(NOT_RUN, f"onnxruntime cannot load `{reference.name}`: {first_line(error)}")
    try:
        feeds = random_inputs(first) if feeds is None else feeds
        want = _flat(first.run(None, feeds))
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        return Certificate(NOT_RUN, f"`{reference.name}` does not run on {described}: {first_line(error)}")
    del first
    try:
        by_body = want if original is None else _flat(_plain_session(built.model).run(None, feeds))
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        return Certificate(
            FAILED, f"the compiled model does not run: {first_line(error)}", described, tolerance
        )
    by_library: Outputs | None
    if gpu:
        runs_here, (by_library, remark) = True, _by_gpu(built, feeds, gpu)
    else:
        runs_here, remark = _where_it_runs(built)
        by_library = _by_library(built, feeds, by_body) if runs_here else None
    of_body = distance(by_body, want)
    of_library = None if by_library is None else distance(by_library, want)
    worst = of_body if of_library is None else max(of_body, of_library)
    status, reason = (PASSED if runs_here else NOT_RUN), remark
    if not worst <= tolerance:  # written so that NaN fails
        status, reason = FAILED, _difference(worst, tolerance)
    equal = None
    if by_library is not None:
        equal = all(_equal(a, b) for a, b in zip(by_library, by_body, strict=True))
    return Certificate(status, reason, described, tolerance, of_library, of_body, equal)


def _where_it_runs(built: Bundle) -> tuple[bool, str]:
    """Whether this machine runs a library of the bundle, or needs none; and which others it cannot run."""
    names = [entry.name for entry in built.manifest.targets]
    hosts: tuple[str, ...]
    try:
        hosts = libraries.host_targets()
    except TargetError:
        hosts = (f"{platform.system()} {platform.machine()}",)
    others = ", ".join(name for name in names if name not in hosts)
    words = [f"not run: this machine ({hosts[0]}) cannot run {others}"] if others else []
    if any(entry.gpus for entry in built.manifest.targets):
        words.append("not run: the CUDA kernels; `bitcc verify --target cuda` does so on a GPU")
    return bool({*hosts} & {*names}) or not names, "; ".join(words)


def _by_library(built: Bundle, feeds: Feeds, by_body: Outputs) -> Outputs:
    """What the bundle computes with its library; a model in which nothing was packed has none."""
    if not built.manifest.targets:
        return by_body
    options = _options()
    runtime.register_library(built, options)
    return _flat(runtime.open_session(built, options).run(None, feeds))


def _by_gpu(built: Bundle, feeds: Feeds, gpu: str) -> tuple[Outputs, str]:
    """What the bundle computes with CUDA, and in words what ran there.

    Raises:
        VerificationError: onnxruntime does not run the model so, or leaves its layers to the CPU.
    """
    options = _options()
    runtime.register_library(built, options, cuda=True)
    with tempfile.TemporaryDirectory(prefix="bitcc-verify-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = runtime.open_session(built, options, runtime.EXACT_CUDA)
        try:
            outputs = _flat(session.run(None, feeds))
        except Exception as error:  # onnxruntime's errors have no common base
            raise VerificationError(f"it does not run: {first_line(error)}", where=gpu) from error
        ran = runtime.places(Path(session.end_profiling()), ops.BIT_LINEAR)
    on_gpu = ran[runtime.CUDA]
    if on_gpu < ran.total() or not on_gpu:
        raise VerificationError(
            f"{on_gpu} of {ran.total()} {ops.BIT_LINEAR} nodes ran there",
            where=gpu,
            hint="unset BITCC_CUDA; if it was not set, report this with the model"
            if ran.total()
            else "no layer of this model has int8 activations, and only such layers run on a GPU",
        )
    return outputs, f"{on_gpu} {ops.BIT_LINEAR} nodes ran on {gpu}"


def _difference(worst: float, tolerance: float) -> str:
    if math.isfinite(worst):
        return f"the difference of {worst:.1e} of max|y| is over {tolerance:.0e}"
    return "shapes, integers, NaN or infinity of the outputs differ"


def require(certificate: Certificate) -> None:
    """Raise what a failed certificate says.

    Raises:
        VerificationError: it failed.
    """
    if certificate.status == FAILED:
        raise VerificationError(
            certificate.reason,
            where="the compiled model",
            hint="do not use the bundle; report the model, or see `bitcc inspect` for the layers",
        )


def _flat(outputs: Sequence[Any]) -> Outputs:
    """Sequences and maps as the arrays that they hold; an optional output that is not there is empty."""
    flat: Outputs = []
    for output in outputs:
        if isinstance(output, dict):
            flat += _flat([list(output), list(output.values())])
        elif isinstance(output, list) and not all(np.isscalar(item) for item in output):
            flat += _flat(output)
        else:
            flat.append(np.zeros(0) if output is None else np.asarray(output))
    return flat


def _equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def distance(got: Outputs, want: Outputs) -> float:
    """The largest |got - want| / max|want| over the floating-point outputs; other outputs must be equal."""
    worst = 0.0
    for g, w in zip(got, want, strict=True):
        if g.shape != w.shape:
            return float("inf")
        if w.dtype.kind != "f":
            worst = worst if np.array_equal(g, w) else float("inf")
            continue
        if not np.array_equal(np.isfinite(g), np.isfinite(w)):
            return float("inf")
        finite = np.isfinite(w)
        g64, w64 = g[finite].astype(np.float64), w[finite].astype(np.float64)
        scale = float(np.max(np.abs(w64), initial=0.0)) or 1.0
        worst = max(worst, float(np.max(np.abs(g64 - w64), initial=0.0)) / scale)
    return worst


def random_inputs(session: ort.InferenceSession) -> Feeds:
    """Small random inputs: dynamic dimensions of one name have one size; integers are 0 or 1.

    Raises:
        ModelError: an input is not a tensor of a type that can be drawn.
    """
    rng = np.random.default_rng(0)
    feeds: Feeds = {}
    for value in session.get_inputs():
        if value.type not in _TYPES:
            raise ModelError(
                f"the input `{value.name}` is {value.type}; random values make no sense for it",
                hint="give inputs with --inputs FILE.npz",
            )
        shape = [d if isinstance(d, int) else _DYNAMIC_DIM for d in value.shape]
        dtype = np.dtype(_TYPES[value.type])
        array = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds[value.name] = array.astype(dtype)
    return feeds


def _load_inputs(path: Path) -> Feeds:
    try:
        with np.load(path, allow_pickle=False) as data:
            return dict(data)
    except Exception as error:  # numpy, zipfile and zlib raise their own; an .npy file is a TypeError
        raise ModelError(
            f"not an .npz file of inputs: {error}",
            where=f"`{path}`",
            hint="write it with numpy.savez(FILE, name=array, ...)",
        ) from error


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _plain_session(path: Path) -> ort.InferenceSession:
    options = _options()
    # planning which buffers to reuse takes time that grows with the square of the nodes, of which function
    # bodies have many; what is computed is the same
    options.enable_mem_reuse = False
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
