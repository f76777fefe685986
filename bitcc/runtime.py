"""Open a bundle in onnxruntime."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import onnxruntime as ort

from bitcc import bundle as bundles
from bitcc import nvidia, paths, runtime_ops, targets
from bitcc.bundle import Bundle
from bitcc.errors import BundleError, TargetError, first_line
from bitcc.libraries import host_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.bundle import TargetEntry
    from bitcc.runtime_ops import LibraryInfo

    Provider: TypeAlias = "str | tuple[str, dict[str, str]]"

CPU = ("CPUExecutionProvider",)
CUDA = "CUDAExecutionProvider"
WITH_CUDA = (CUDA, *CPU)  # the CPU takes what CUDA has no kernel for
_TWICE = "Domain already set in registry"  # says onnxruntime of a library that the caller registered, too
# without the 10-bit mantissas that its float32 products else have
EXACT_CUDA = ((CUDA, {"use_tf32": "0"}), *CPU)


def session(
    bundle: Bundle | str | os.PathLike[str],
    options: ort.SessionOptions | None = None,
    providers: Sequence[Provider] = CPU,
) -> ort.InferenceSession:
    """A session with the bundle's library for this machine, and for its GPU if the providers ask for CUDA.

    Raises:
        BundleError: the bundle is damaged, has no library for this machine, or was replaced meanwhile.
        TargetError: onnxruntime refuses the library, or cannot use CUDA.
    """
    folder = bundle.path if isinstance(bundle, Bundle) else Path(bundle)
    before = _identity(folder)
    opened = bundle if isinstance(bundle, Bundle) else bundles.read(bundle)
    options = options or ort.SessionOptions()
    if opened.manifest.targets:
        register_library(opened, options, cuda=asks_for_cuda(providers))
    try:
        return open_session(opened, options, providers)
    finally:
        if _identity(folder) != before:  # then the model may be of one bundle, and its data of another
            raise BundleError(
                "it was replaced while it was opened", where=f"bundle `{folder}`", hint="open it again"
            )


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except (OSError, ValueError):  # of what is not there, or is no name, the reader tells
        return None
    return found.st_dev, found.st_ino


def asks_for_cuda(providers: Sequence[Provider]) -> bool:
    """Whether CUDA is one of them."""
    return any(CUDA in (provider, provider[0]) for provider in providers)


def check_target(name: str | None) -> str:
    """The GPU that a target runs on here, in words; empty for the CPU, as for None.

    Raises:
        TargetError: it is unknown, or this machine cannot run it.
    """
    if name is None:
        return ""
    if targets.get(name).gpus:
        return check_cuda()
    if name not in host_targets():
        raise TargetError(f"this machine ({host_targets()[0]}) cannot run {name}")
    return ""


def check_cuda() -> str:
    """The GPU that sessions for CUDA would use, in words.

    Raises:
        TargetError: there is none, or onnxruntime cannot use it.
    """
    found = nvidia.look()
    if found.problem:
        raise TargetError(
            found.problem, hint="run this on a machine with an NVIDIA GPU; `nvidia-smi` says what is there"
        )
    if CUDA not in ort.get_available_providers():
        raise _no_cuda_provider()
    return found.names[0]


def _no_cuda_provider() -> TargetError:
    return TargetError(
        f"this onnxruntime ({ort.__version__}) has no {CUDA}",
        hint="pip uninstall onnxruntime, then pip install onnxruntime-gpu",
    )


def places(profile: Path, op: str) -> Counter[str]:
    """How many nodes of an op ran on which provider, as a profile of onnxruntime says."""
    events = json.loads(profile.read_text(encoding="utf-8"))
    nodes = [(event["name"], event["args"]) for event in events if event.get("cat") == "Node"]
    # some versions of onnxruntime write more events of a node, which do not say where it ran
    ran = {
        (name, of.get("node_index")): of["provider"]
        for name, of in nodes
        if of.get("op_name") == op and "provider" in of
    }
    return Counter(ran.values())


def library_entry(opened: Bundle, *, cuda: bool = False) -> TargetEntry:
    """The library that a session here takes.

    With CUDA it is that of the target with GPU kernels. Without, it is that of the CPU, or else the one with
    GPU kernels, which has all of the CPU's too.

    Raises:
        BundleError: the bundle has none.
    """
    names = host_targets()
    return opened.entry(*(name for name in names if targets.get(name).gpus or not cuda))


def register_library(opened: Bundle, options: ort.SessionOptions, *, cuda: bool = False) -> None:
    """Register the bundle's library for this machine after checking its digest: it is code that will run.

    Raises:
        BundleError: the library is missing, or not what bitcc wrote.
        TargetError: none of its kernels can run here, or onnxruntime refuses it.
    """
    entry = library_entry(opened, cuda=cuda)
    library = opened.path / entry.library
    opened.check_digest(entry.library)
    check_kernels(runtime_ops.library_info(library))
    runtime_ops.register(options, library)


def check_kernels(info: LibraryInfo) -> str:
    """The instruction-set variant of a library that runs here.

    Raises:
        TargetError: ``BITCC_ISA`` names none that can, or what it names computes wrong numbers here.
    """
    if info.selected is not None:
        return info.selected
    for isa, kernel in info.wrong.items():
        raise TargetError(
            f"kernel `{kernel}` of {isa} computes wrong numbers on this machine",
            hint="set BITCC_ISA to another variant, and report this",
        )
    chosen = os.environ.get("BITCC_ISA", "")
    known = ", ".join(name for name in info.variants if name != chosen)
    raise TargetError(
        f"BITCC_ISA={chosen} names no kernels that run here" if chosen else "it has no kernels that run here",
        hint=f"unset BITCC_ISA, or set it to one of {known}" if chosen else f"it has {known}",
    )


def open_session(
    opened: Bundle, options: ort.SessionOptions, providers: Sequence[Provider] = CPU
) -> ort.InferenceSession:
    """The session, with onnxruntime's refusal as an error of ours.

    Raises:
        BundleError: onnxruntime cannot load the model; its words are in the message.
        BitccError: the model's path is not UTF-8.
        TargetError: CUDA was asked for, and onnxruntime would leave it out.
    """
    if asks_for_cuda(providers) and CUDA not in ort.get_available_providers():
        raise _no_cuda_provider()
    model = paths.for_onnxruntime(opened.model)
    try:
        opened_session = ort.InferenceSession(model, options, providers=list(providers))
    except Exception as error:  # onnxruntime's errors have no common base
        problem = f"onnxruntime cannot load it: {first_line(error)}"
        hint = "give options without the library: it is registered here" if _TWICE in problem else ""
        raise BundleError(problem, where=f"`{opened.model}`", hint=hint) from error
    if asks_for_cuda(providers) and CUDA not in opened_session.get_providers():
        raise TargetError(
            "onnxruntime could not start CUDA, and would run the model on the CPU",
            hint="what it printed says why; `bitcc doctor --target cuda` says what is there",
        )
    return opened_session
