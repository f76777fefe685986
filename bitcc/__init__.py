"""bitcc: compile BitNet-style ternary ONNX models into packed models and kernels for onnxruntime.

    bundle = bitcc.compile("model.onnx", "bundle", targets=["x86-64"])
    session = bitcc.session(bundle)                # an onnxruntime.InferenceSession
    bitcc.library_path()                           # to register in a session of your own

The graph passes are in ``bitcc.passes`` and work alone on any ``onnx_ir.Model``. Importing ``bitcc`` loads
none of onnx, onnxruntime or tvm.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bitcc.errors import BitccError
from bitcc.facts import FormatChoice, Numerics
from bitcc.version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import onnx_ir
    import onnxruntime

    from bitcc.bundle import Bundle

__all__ = ["BitccError", "__version__", "compile", "library_path", "session"]


def compile(  # noqa: A001 - the name that users expect
    model: str | os.PathLike[str] | onnx_ir.Model,
    output: str | os.PathLike[str],
    *,
    targets: str | Sequence[str] | None = None,
    min_weights: int | None = None,
    verify: bool | None = None,
    force: bool = False,
    strict: bool = False,
    numerics: str = "fp32",
    tiles: str | os.PathLike[str] | None = None,
    weight_format: str = "auto",
) -> Bundle:
    """Compile a model into a bundle folder.

    Args:
        model: An ONNX file, or a model in memory (which is rewritten in place).
        output: The folder to make.
        targets: Name of a target, or of several: a library for each in one bundle; default: this machine's.
        min_weights: Layers with fewer weights stay as they are; None leaves those that are faster so: float
            activations and fewer than 4096 weights.
        verify: Run the whole model before and after; None does so for models up to 256 MB. Every layer is
            proven in any case.
        force: Replace an existing bundle.
        strict: Fail if a layer with ternary or binary weights would stay as it is.
        numerics: Activation scales and codes of half-precision models: ``fp32``, or ``faithful`` to the
            original.
        tiles: A file of tile sizes, as ``bitcc tune`` makes it.
        weight_format: Of layers with int8 activations: ``t2``, ``t5``, or ``auto``: ``t5`` for models of 2^25
            weights or more on x86-64, else ``t2``; docs/formats.md says why.

    Returns:
        The bundle. ``bundle.packed`` is empty if the model holds no BitLinear; it is unchanged then.

    Raises:
        BitccError: with the reason and what to do; ``output`` is then as it was before. If the compiled model
            does not compute what the original does, it is a ``VerificationError``.
    """
    from bitcc import pipeline  # noqa: PLC0415 - heavy

    request = pipeline.Request(
        targets=(targets,) if isinstance(targets, str) else None if targets is None else tuple(targets),
        min_weights=min_weights,
        verify=verify,
        force=force,
        strict=strict,
        numerics=Numerics(numerics),
        tiles=None if tiles is None else Path(tiles),
        weight_format=FormatChoice(weight_format),
    )
    return pipeline.compile_model(model, output, request)


def session(
    bundle: Bundle | str | os.PathLike[str],
    options: onnxruntime.SessionOptions | None = None,
    providers: Sequence[str | tuple[str, dict[str, str]]] = ("CPUExecutionProvider",),
) -> onnxruntime.InferenceSession:
    """An onnxruntime session of a bundle, with its library registered.

    Args:
        bundle: A bundle, or its folder.
        options: Session options to use; the library is registered in them.
        providers: As onnxruntime takes them. With ``CUDAExecutionProvider`` the library of target ``cuda`` is
            registered, and it is an error if CUDA cannot be used; else that of the CPU.

    Raises:
        BitccError: the bundle is damaged, holds no library for this machine, or was replaced meanwhile.
    """
    from bitcc import runtime  # noqa: PLC0415 - heavy

    return runtime.session(bundle, options, providers)


def library_path(target: str | None = None, tiles: str | os.PathLike[str] | None = None) -> Path:
    """The op library for a target, default this machine's; built when it is not in the cache.

    Copy it to keep it: the cache forgets what was not asked for in 30 days.

    Args:
        target: Name of the target.
        tiles: A file of tile sizes, as ``bitcc tune`` makes it.

    Raises:
        BitccError: the target is unknown or its library cannot be built.
    """
    from bitcc import libraries  # noqa: PLC0415 - heavy

    return libraries.library_path(target, tiles=None if tiles is None else Path(tiles))
