"""Run a whole model before and after, with the library and without it, and measure the difference.

The certificate has two parts. Each layer was proven on its own when it was compiled, to 1e-5 of max|y|. The
whole model is compared here: an activation code that sits on a rounding boundary can fall to the other side
by a difference in the last place of an earlier layer, so that deep models differ by more than one layer does;
the bound is for errors of meaning, and the measured figure is reported.
"""

from __future__ import annotations

import math
import platform
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bitcc import bundle, formats, libraries, model_file, ops, runtime, source
from bitcc.errors import BundleError, ModelError, PackedWeightError, TargetError, first_line
from bitcc.verify import runs
from bitcc.verify.certificate import (
    BODY,
    FAILED,
    HALF_TOLERANCE,
    NOT_RUN,
    ORIGINAL,
    PARTLY,
    PASSED,
    TOLERANCE,
    Certificate,
    require,
)
from bitcc.verify.inputs import load_inputs, random_inputs
from bitcc.verify.outputs import distance, equal, flat

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime as ort

    from bitcc.bundle import Bundle
    from bitcc.verify.inputs import Feeds
    from bitcc.verify.outputs import Outputs

_COMPUTED_FINER = frozenset({"float32", "faithful"})  # than the original does

__all__ = ["check_weights", "compare", "distance", "not_run", "random_inputs", "require", "verify_bundle"]


def not_run(reason: str) -> dict[str, Any]:
    """The certificate of a comparison that did not take place."""
    return Certificate(NOT_RUN, reason).to_dict()


def verify_bundle(
    path: Path,
    against: Path | None,
    inputs: Path | None,
    tolerance: float | None = None,
    target: str | None = None,
) -> Certificate:
    """Check a bundle: its files, its packed weights, and what it computes.

    Args:
        path: The bundle's folder.
        against: The original model; None to compare only the library with the function body.
        inputs: A .npz file of inputs by name; None for random ones.
        tolerance: Bound on the difference, relative to max|y|; None for that of the model's precision.
        target: ``cuda`` to run the library on this machine's GPU; None for its CPU.

    Raises:
        BundleError: a file is missing or not what the compiler wrote; there is no library for the target; or
            there is nothing that could be compared here.
        PackedWeightError: a packed weight is not what its layout allows.
        ModelError: the inputs cannot be read.
        TargetError: this machine cannot run that target.
        VerificationError: the bundle does not run with its library, or the GPU does not run its layers.
    """
    built = bundle.read(path)
    gpu = runtime.check_target(target)
    if target is not None and not gpu and built.manifest.targets:
        runtime.library_entry(built)  # what was asked for; without, what runs here is compared
    built.check_digests()
    check_weights(built)
    if against is not None:
        model_file.check_is_file(against)
    feeds = None if inputs is None else load_inputs(inputs)
    found = compare(built, against, feeds, tolerance, gpu=gpu)
    if not found.inputs:
        raise ModelError(
            found.reason, hint="check the paths; give inputs that the model takes with --inputs FILE.npz"
        )
    if found.status == NOT_RUN:
        raise BundleError(
            f"its files and packed weights are whole, but nothing was compared: {found.reason}",
            where=f"bundle `{path}`",
            hint="give the original model with --against"
            + (", or run this on a machine that a library is for" if built.manifest.targets else ""),
        )
    return found


def check_weights(built: Bundle) -> None:
    """Unpack every packed weight of a bundle's model; its data is in files whose digests were checked.

    Raises:
        BundleError: some is in another file.
        PackedWeightError: one is not what its layout allows; the error names the node.
    """
    model = source.load(built.model)
    for location in {source.location(tensor) for tensor in source.external_tensors(model)}:
        if location not in built.manifest.files:
            problem = f"`{bundle.MANIFEST}` does not know `{location}`, which has data of the model"
            raise BundleError(problem, where=f"bundle `{built.path}`")
    for node in model.graph.all_nodes():
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
    tolerance: float | None = None,
    *,
    gpu: str = "",
) -> Certificate:
    """Run the original and the bundle, with the library and without, on the same inputs.

    Args:
        built: The bundle.
        original: The model that it was compiled from; None to compare the bundle with itself.
        feeds: Inputs by name; default: small random ones.
        tolerance: Bound on the difference, relative to max|y|; None for that of the model's precision.
        gpu: Name of the GPU that runs the library; empty for the CPU, which runs everything else.

    Raises:
        VerificationError: the bundle does not run with its library, or the GPU does not run its layers.
    """
    if tolerance is None:
        tolerance = _bound(built)
    described = "random inputs, seed 0" if feeds is None else "given inputs"
    reference, against = (original, ORIGINAL) if original else (built.model, BODY)
    try:
        first = runs.plain_session(reference)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        return Certificate(NOT_RUN, f"onnxruntime cannot load `{reference.name}`: {first_line(error)}")
    try:
        feeds, want = _first_run(first, feeds)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        return Certificate(NOT_RUN, f"`{reference.name}` does not run on {described}: {first_line(error)}")
    del first
    try:
        by_body = want if original is None else flat(runs.plain_session(built.model).run(None, feeds))
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        reason = f"the compiled model does not run: {first_line(error)}"
        return Certificate(FAILED, reason, described, against, tolerance)
    by_library: Outputs | None
    if gpu:
        runs_here, (by_library, remark) = True, runs.by_gpu(built, feeds, gpu)
    else:
        runs_here, remark = _where_it_runs(built)
        differ = original is not None or built.manifest.targets  # else it is one model, run once
        by_library = runs.by_library(built, feeds, by_body) if runs_here and differ else None
    errors = _errors(by_body, by_library, want, original)
    caveat = "" if original else "not compared with the original: give it with --against"
    if original and not errors.worst <= tolerance and _computes_finer(built):
        rounded = runs.by_rounded(original, feeds)
        again = None if rounded is None else _errors(by_body, by_library, rounded, original)
        if again is not None and again.worst <= tolerance:
            caveat = f"onnxruntime leaves roundings of the original out, by {errors.worst:.1e} of max|y|"
            errors = again
    compared = not (errors.of_body is None and errors.of_library is None)
    status = (PASSED if runs_here else PARTLY) if compared else NOT_RUN
    reason = "; ".join(filter(None, [caveat, remark]))
    if not errors.worst <= tolerance:  # written so that NaN fails
        status, reason = FAILED, _difference(errors.worst, tolerance)
    same = None if by_library is None else equal(by_library, by_body)
    return Certificate(status, reason, described, against, tolerance, errors.of_library, errors.of_body, same)


def _first_run(session: ort.InferenceSession, feeds: Feeds | None) -> tuple[Feeds, Outputs]:
    """What it is run on, and what it gives: on random inputs of unlike sizes, if it takes them."""
    if feeds is None:
        feeds = random_inputs(session, unlike=True)
        try:
            return feeds, flat(session.run(None, feeds))
        except Exception:  # noqa: BLE001 - onnxruntime's errors have no common base
            feeds = random_inputs(session)  # sizes that have to be one, though their names are not
    return feeds, flat(session.run(None, feeds))


def _where_it_runs(built: Bundle) -> tuple[bool, str]:
    """Whether this machine runs a library of the bundle, or needs none; and which others it cannot run."""
    names = [entry.name for entry in built.manifest.targets]
    hosts: tuple[str, ...]
    try:
        hosts = libraries.host_targets()
    except TargetError:
        hosts = (f"{platform.system()} {platform.machine()}",)
    others = ", ".join(name for name in names if name not in hosts)
    there = "so run `bitcc verify` on one that can"
    words = [f"not run: this machine ({hosts[0]}) cannot run {others}, {there}"] if others else []
    if any(entry.gpus for entry in built.manifest.targets):
        words.append("not run: the CUDA kernels; `bitcc verify --target cuda` does so on a GPU")
    return bool({*hosts} & {*names}) or not names, "; ".join(words)


class _Errors(NamedTuple):
    """The differences from what was wanted; None where there is nothing to compare."""

    of_library: float | None
    of_body: float | None

    @property
    def worst(self) -> float:
        """The larger one."""
        return max(error for error in (self.of_body, self.of_library, 0.0) if error is not None)


def _errors(by_body: Outputs, by_library: Outputs | None, want: Outputs, original: Path | None) -> _Errors:
    of_body = None if original is None else distance(by_body, want)
    return _Errors(None if by_library is None else distance(by_library, want), of_body)


def _bound(built: Bundle) -> float:
    """On the difference from the original."""
    return HALF_TOLERANCE if _computes_finer(built) else TOLERANCE


def _computes_finer(built: Bundle) -> bool:
    """Whether the original rounds in half precision what a layer computes in float32."""
    return any(layer.numerics in _COMPUTED_FINER for layer in built.packed)


def _difference(worst: float, tolerance: float) -> str:
    if math.isfinite(worst):
        return f"the difference of {worst:.1e} of max|y| is over {tolerance:.0e}"
    return "the number, types, shapes, integers, NaN or infinity of the outputs differ"
