"""What a model computes: as any onnxruntime runs it, and with the library on the CPU or a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime as ort

from bitcc import ops, paths, runtime, temporary
from bitcc.errors import BundleError, VerificationError, first_line
from bitcc.verify.outputs import flat
from bitcc.verify.rounded import rounded_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.bundle import Bundle
    from bitcc.verify.inputs import Feeds
    from bitcc.verify.outputs import Outputs

_LIBRARY = "with the library"


def plain_session(path: Path) -> ort.InferenceSession:
    """A session of any model, without the library and without optimisations."""
    options = _options()
    # planning which buffers to reuse takes time that grows with the square of the nodes, of which function
    # bodies have many; what is computed is the same
    options.enable_mem_reuse = False
    return ort.InferenceSession(paths.for_onnxruntime(path), options, providers=["CPUExecutionProvider"])


def by_rounded(path: Path, feeds: Feeds) -> Outputs | None:
    """What a model computes if every result of half precision is rounded; None if it does not run so."""
    try:
        return flat(rounded_session(path, _options()).run(None, feeds))
    except Exception:  # noqa: BLE001 - onnxruntime's and onnx's errors have no common base
        return None


def by_library(built: Bundle, feeds: Feeds, by_body: Outputs) -> Outputs:
    """What the bundle computes with its library; a model in which nothing was packed has none.

    Raises:
        VerificationError: the model does not run with it.
    """
    if not built.manifest.targets:
        return by_body
    options = _options()
    runtime.register_library(built, options)
    return _run(_open(built, options, runtime.CPU, _LIBRARY), feeds, _LIBRARY)


def by_gpu(built: Bundle, feeds: Feeds, gpu: str) -> tuple[Outputs, str]:
    """What the bundle computes with CUDA, and in words what ran there.

    Raises:
        VerificationError: onnxruntime does not run the model so, or leaves its layers to the CPU.
    """
    options = _options()
    runtime.register_library(built, options, cuda=True)
    with temporary.folder() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        session = _open(built, options, runtime.EXACT_CUDA, gpu)
        outputs = _run(session, feeds, gpu)
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


def _open(
    built: Bundle, options: ort.SessionOptions, providers: Sequence[runtime.Provider], where: str
) -> ort.InferenceSession:
    try:
        return runtime.open_session(built, options, providers)
    except BundleError as error:  # its files are whole, so it is what the compiler made of the model
        raise VerificationError(error.problem, where=where) from error


def _run(session: ort.InferenceSession, feeds: Feeds, where: str) -> Outputs:
    try:
        return flat(session.run(None, feeds))
    except Exception as error:  # onnxruntime's errors have no common base
        raise VerificationError(f"it does not run: {first_line(error)}", where=where) from error


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options
