"""CUDA on Linux, x86-64: one library with the CPU kernels and those for NVIDIA GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bitcc.errors import TargetError
from bitcc.targets import x86_64

if TYPE_CHECKING:
    from bitcc.targets._base import Target

TARGET = replace(
    x86_64.TARGET,
    name="cuda",
    needs="x86-64, NVIDIA GPUs from sm_75 on",
    proof="CPU kernels as x86-64; CUDA emulated, and run on an H100",
    files=replace(
        x86_64.TARGET.files,
        library="libbitcc_ops_cuda.so",
        libraries=(*x86_64.TARGET.files.libraries, "-ldl"),  # finds the driver
    ),
    flags=("-DBITCC_CUDA",),
    gpus=(90, 89, 86, 80, 75),
)


def only(names: str) -> Target:
    """The target for some of its GPUs, such as ``sm_80`` or ``sm_80,sm_90``.

    Raises:
        TargetError: there are no kernels for one of them; the hint names those that there are.
    """
    known = {f"sm_{gpu}": gpu for gpu in TARGET.gpus}
    asked = names.split(",")
    for name in asked:
        if name not in known:
            raise TargetError(
                f"there is no GPU `{name}` in target `cuda`",
                hint=f"choose of {', '.join(known)}, such as `cuda:sm_80` or `cuda:sm_80,sm_90`; newer GPUs "
                "run what is made for the newest one of these",
            )
    return replace(TARGET, gpus=tuple(gpu for name, gpu in known.items() if name in asked))
