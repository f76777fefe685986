"""The op on a GPU against onnxruntime's own CUDA kernels, with x and y in the GPU's memory.

Copies of a layer follow each other in one session, so that the GPU has work while the CPU launches more; no
cache of a GPU holds their weights. For few tokens it can be launching that takes the time: what is measured
is what a model in onnxruntime pays for a layer, without captured graphs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from bitcc import ops, runtime, runtime_ops, temporary
from bitcc.bench import models, op
from bitcc.bench.contenders import BITCC, NBITS4, OVERHEAD, PEERS, Contender, random_layer
from bitcc.bench.results import ON_GPU
from bitcc.bench.rounds import Pace
from bitcc.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.bench.contenders import Layer
    from bitcc.bench.models import Stack
    from bitcc.bench.op import Progress
    from bitcc.bench.results import OpBench

DEVICE = "cuda"  # as onnxruntime calls memory there
TOKENS = (1, 8, 64, 512)
_WEIGHTS = 160 * 2**20  # bytes; more than the 50 MB of an H100's cache
_HALF_ROUNDING = 1e-3  # of max|y|


@dataclass(frozen=True)
class OnGpu:
    """A contender on the GPU.

    Attributes:
        contender: What runs.
    """

    contender: Contender

    @property
    def name(self) -> str:
        """Short, for tables and JSON."""
        return self.contender.name

    @property
    def about(self) -> str:
        """What runs."""
        return self.contender.about

    @property
    def tolerance(self) -> float:
        """Largest difference from our op relative to max|y|."""
        return self.contender.tolerance

    def prepare(self, folder: Path, layer: Layer, stream_bytes: int) -> Stack:
        """Copies of the layer."""
        return replace(models.write(folder, self.contender, layer, stream_bytes), device=DEVICE)


def half(contender: Contender, name: str, tolerance: float) -> Contender:
    """The same with x, y and the weights in float16; our op and integers keep their constants."""

    def tensors(layer: Layer) -> dict[str, Any]:
        found = contender.tensors(layer)
        if contender.needs_library:
            return found
        return {key: a.astype(np.float16) if a.dtype == np.float32 else a for key, a in found.items()}

    about = f"{contender.about.replace('float32', 'float16')}; x and y in float16"
    return replace(
        contender, name=name, about=about, tolerance=tolerance, tensors=tensors, element=np.float16
    )


FLOAT = PEERS[0]
CONTENDERS = (
    half(BITCC, "bitcc16", _HALF_ROUNDING),
    half(FLOAT, "float16", FLOAT.tolerance),
    FLOAT,
    half(NBITS4, "nbits4", NBITS4.tolerance),
)


def plan(shapes: Sequence[tuple[int, int]] = op.SHAPES) -> op.Plan:
    """What is measured; the defaults take some minutes."""
    return op.Plan(
        shapes=tuple(shapes),
        kinds=tuple((tokens, ON_GPU) for tokens in TOKENS),
        threads=(1,),
        pace=Pace(settle=0.0),
        stream_bytes=_WEIGHTS,
        x_type=np.float16,
    )


def quick() -> op.Plan:
    """Two of the shapes."""
    return plan((op.SHAPES[0], op.SHAPES[3]))


def run(library: Path, wanted: op.Plan | None = None, *, progress: Progress | None = None) -> OpBench:
    """Time the op of a library for target ``cuda`` on this machine's GPU.

    Args:
        library: The op library.
        wanted: What to measure.
        progress: As in ``op.run``.

    Raises:
        TargetError: there is no GPU that onnxruntime can use.
        VerificationError: our op does not run there, or does not compute what it has to.
    """
    gpu = runtime.check_cuda()
    _check_place(library, gpu)
    peers = [OnGpu(contender) for contender in CONTENDERS]
    idle = OnGpu(OVERHEAD)
    found = op.run(library, wanted or plan(), peers=peers, ours=OnGpu(BITCC), idle=idle, progress=progress)
    return replace(found, machine=replace(found.machine, gpu=gpu))


def _check_place(library: Path, gpu: str) -> None:
    """Whether the op runs on the GPU.

    Raises:
        VerificationError: it runs on the CPU.
    """
    layer = random_layer(64, 64, 1)
    with temporary.folder() as folder:
        stack = models.write(folder / BITCC.name, BITCC, layer)
        options = models.session_options(1)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        runtime_ops.register(options, library)
        session = ort.InferenceSession(str(stack.path), options, providers=list(runtime.WITH_CUDA))
        session.run(None, {value.name: layer.x for value in session.get_inputs()})
        ran = runtime.places(Path(session.end_profiling()), ops.BIT_LINEAR)
    if set(ran) != {runtime.CUDA}:
        raise VerificationError(
            f"{ops.BIT_LINEAR} ran on {', '.join(ran) or 'nothing'}",
            where=gpu,
            hint="unset BITCC_CUDA; `bitcc doctor --target cuda` says what is there",
        )
