"""Open a bundle in onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime as ort

from bitcc import bundle as bundles
from bitcc import runtime_ops
from bitcc.bundle import Bundle
from bitcc.digest import sha256
from bitcc.errors import BundleError
from bitcc.libraries import host_target

if TYPE_CHECKING:
    import os


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
    """Register the bundle's library for this machine after checking its digest: it is code that will run."""
    host = host_target()
    library = opened.library(host)
    digest = next(t.sha256 for t in opened.manifest.targets if t.name == host)
    if sha256(library) != digest:
        raise BundleError(f"`{library.name}` is not what bitcc wrote", where=f"bundle `{opened.path}`")
    runtime_ops.register(options, library)


def open_session(opened: Bundle, options: ort.SessionOptions) -> ort.InferenceSession:
    """The session, with onnxruntime's refusal as an error of ours.

    Raises:
        BundleError: onnxruntime cannot load the model; its words are in the message.
    """
    try:
        return ort.InferenceSession(str(opened.model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        text = str(error).strip().splitlines()[0]
        raise BundleError(f"onnxruntime cannot load it: {text}", where=f"`{opened.model}`") from error
