"""Open a bundle in onnxruntime."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import onnxruntime as ort

from bitcc import bundle as bundles
from bitcc import runtime_ops
from bitcc.bundle import Bundle
from bitcc.digest import sha256
from bitcc.errors import BundleError, TargetError, first_line
from bitcc.libraries import host_target

if TYPE_CHECKING:
    from bitcc.runtime_ops import LibraryInfo


def session(
    bundle: Bundle | str | os.PathLike[str], options: ort.SessionOptions | None = None
) -> ort.InferenceSession:
    """A session with the bundle's library for this machine.

    Raises:
        BundleError: the bundle is damaged, or has no library for this machine.
        TargetError: onnxruntime refuses the library.
    """
    opened = bundle if isinstance(bundle, Bundle) else bundles.read(bundle)
    options = options or ort.SessionOptions()
    if opened.manifest.targets:
        register_library(opened, options)
    return open_session(opened, options)


def register_library(opened: Bundle, options: ort.SessionOptions) -> None:
    """Register the bundle's library for this machine after checking its digest: it is code that will run.

    Raises:
        BundleError: the library is missing, or not what bitcc wrote.
        TargetError: none of its kernels can run here, or onnxruntime refuses it.
    """
    host = host_target()
    library = opened.library(host)
    digest = next(t.sha256 for t in opened.manifest.targets if t.name == host)
    if sha256(library) != digest:
        raise BundleError(f"`{library.name}` is not what bitcc wrote", where=f"bundle `{opened.path}`")
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


def open_session(opened: Bundle, options: ort.SessionOptions) -> ort.InferenceSession:
    """The session, with onnxruntime's refusal as an error of ours.

    Raises:
        BundleError: onnxruntime cannot load the model; its words are in the message.
    """
    try:
        return ort.InferenceSession(str(opened.model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        problem = f"onnxruntime cannot load it: {first_line(error)}"
        raise BundleError(problem, where=f"`{opened.model}`") from error
