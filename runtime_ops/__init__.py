"""The C side of bitcc: the sources of the op library, and how to load a built one.

The library is plain C between onnxruntime and the kernels of a target. ``bitcc.targets`` compiles
``sources()`` with its kernels and a ``variants.inc``; see ``include/bitcc/kernel.h`` for that border.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitcc import paths
from bitcc.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnxruntime

__all__ = ["LibraryInfo", "include_dir", "library_info", "register", "sources", "tuner_sources"]

_HERE = Path(__file__).resolve().parent


def sources(*, cuda: bool = False) -> tuple[Path, ...]:
    """The C files of the library, the same for every target but for the launcher of CUDA kernels.

    They want C11, ``-I include_dir()``, ``-DBITCC_VERSION="1.2.3"``, ``variants.inc`` on the include
    path, ``-fvisibility=hidden`` and ``-ffp-contract=off``: results are to be the same everywhere.

    Args:
        cuda: With the launcher. Then all want ``-DBITCC_CUDA``, ``cuda.inc`` (``include/bitcc/cuda.h``) and
            ``-ldl``, and the launcher wants the headers of the others beside it or by another ``-I``.

    Raises:
        TargetError: they are no files.
    """
    folder = _folder()
    launcher = (folder / "cuda").glob("*.c") if cuda else ()
    return (*sorted(folder.glob("*.c")), *sorted(launcher))


def tuner_sources() -> tuple[Path, ...]:
    """The C files of a library that times kernels instead of being one of ops: for ``targets.tune``.

    They want what ``sources`` do, and the headers beside those.

    Raises:
        TargetError: they are no files.
    """
    parts = ("self_test*.c", "variants.c", "cpu_*.c")
    folder = _folder()
    found = (path for part in parts for path in folder.glob(part))
    return (_HERE / "tune" / "measure.c", *sorted(found))


def _folder() -> Path:
    folder = _HERE / "src"
    if not folder.is_dir():
        raise TargetError(
            "its C sources are not files: a library is built from an installed bitcc, not from an archive",
            where=f"bitcc in `{_HERE.parent}`",
            hint="pip install the wheel instead of importing from it",
        )
    return folder


def include_dir() -> Path:
    """The folder that holds ``bitcc/kernel.h``."""
    return _HERE / "include"


@dataclass(frozen=True)
class LibraryInfo:
    """What a built library says about itself and about the machine that it runs on.

    Attributes:
        version: The version of bitcc that built it.
        weight_formats: The layout version that it reads, by weight format.
        variants: Its instruction-set variants, best first.
        selected: The variant that would run here, ``BITCC_ISA`` respected; None if there is none.
        wrong: A better variant that is not used because its self-test failed here, and the kernel that
            computes wrong numbers; mostly empty.
        cpu: The features of this CPU that variants ask for.
        gpus: The GPUs that it has code for, as nvcc calls them: ``sm_90``, and ``compute_90`` for PTX, which
            later ones can compile.
    """

    version: str
    weight_formats: Mapping[str, int]
    variants: tuple[str, ...]
    selected: str | None
    wrong: Mapping[str, str]
    cpu: tuple[str, ...]
    gpus: tuple[str, ...]


_INFO_BYTES = 4096


def library_info(path: Path) -> LibraryInfo:
    """Load a library and ask it.

    Raises:
        TargetError: the file is no library for this machine, or not one of bitcc.
    """
    where = f"library `{path}`"
    try:
        function = ctypes.CDLL(os.fspath(Path(path).absolute())).bitcc_library_info
    except OSError as error:
        raise TargetError(
            f"cannot be loaded: {error}", where=where, hint="build it for this machine"
        ) from error
    except AttributeError as error:
        raise TargetError("is not a library of bitcc", where=where) from error
    function.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    function.restype = ctypes.c_size_t
    text = ctypes.create_string_buffer(_INFO_BYTES)
    function(text, len(text))
    if not text.value:
        raise TargetError("was built by another bitcc", where=where, hint="compile the model again")
    info = json.loads(text.value)
    return LibraryInfo(
        version=info["bitcc"],
        weight_formats=info["weight_formats"],
        variants=tuple(info["variants"]),
        selected=info["selected"],
        wrong=info["wrong"],
        cpu=tuple(info["cpu"]),
        gpus=tuple(info.get("gpus", ())),
    )


_MARK = "bitcc.library"  # a session config entry: the options themselves remember


def register(options: onnxruntime.SessionOptions, library: Path) -> None:
    """Make the ops of bitcc known to the sessions that are created with ``options``.

    Doing so again changes nothing. (Without this guard onnxruntime says ``Domain already set in
    registry``, and only when a session is created.)

    Raises:
        TargetError: onnxruntime refuses the library; its words are in the message. Or the options
            have another one.
        BitccError: its path is not UTF-8.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as errors  # noqa: PLC0415 - heavy

    where = f"library `{library}`"
    path = paths.for_onnxruntime(library)
    with contextlib.suppress(RuntimeError):  # no such entry
        present = options.get_session_config_entry(_MARK)
        if present == path:
            return
        problem = f"`{present}` is registered already"
        raise TargetError(problem, where=where, hint="give each bundle SessionOptions of its own")
    try:
        options.register_custom_ops_library(path)
    except (errors.Fail, errors.InvalidArgument, errors.NotImplemented) as error:
        raise TargetError(f"onnxruntime refused it: {error}", where=where) from error
    options.add_session_config_entry(_MARK, path)
