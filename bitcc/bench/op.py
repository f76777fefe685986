"""The op alone: float32 in, activation quantization, multiplication, dequantization, float32 out.

Before anything is timed, our output is compared with ``bitcc.ops.reference``, bit for bit, and those of the
peers with ours, within what their coarser rounding of activations explains.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from bitcc import temporary
from bitcc.bench import machine
from bitcc.bench.contenders import BITCC, OVERHEAD, PEERS, T5, Layer, random_layer
from bitcc.bench.results import CACHED, STREAMED, Case, CaseResult, OpBench, Timing, means
from bitcc.bench.rounds import Pace, Samples, interleave, ratio, spread
from bitcc.errors import VerificationError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Progress: TypeAlias = Callable[[str, int, int], None]

SHAPES = ((2560, 2560), (6912, 2560), (2560, 6912), (4096, 4096), (14336, 4096))
_LEAST = 1e-9  # seconds; what is left of a run after the overhead, at least
_CLEAR = 0.1  # of the overhead; from less than that left no speed can be told


class Runner(Protocol):
    """Layers that are ready to run; calling it runs all copies once."""

    def __call__(self) -> None:
        """Run all copies."""

    def outputs(self) -> list[NDArray[Any]]:
        """What the last run made, copy by copy; nothing if it computes nothing."""


class Prepared(Protocol):
    """Copies of a layer as a peer keeps them."""

    @property
    def copies(self) -> int:
        """Layers, each with its own weights."""

    @property
    def weight_bytes(self) -> int:
        """Constants that one layer reads."""

    @property
    def in_session(self) -> bool:
        """Whether a run pays for the call of a session of onnxruntime."""

    @property
    def computes(self) -> bool:
        """Whether there are outputs to compare, one for each copy."""

    def open(self, x: NDArray[np.float32], threads: int, library: Path) -> Runner:
        """Make them ready for the input; an error is the reason why the peer is not timed."""


class Peer(Protocol):
    """What can be timed: a ``Contender`` in onnxruntime, or anything else that computes the layer."""

    @property
    def name(self) -> str:
        """Short, for tables and JSON."""

    @property
    def about(self) -> str:
        """What runs."""

    @property
    def tolerance(self) -> float:
        """Largest difference from our op relative to max|y|."""

    def prepare(self, folder: Path, layer: Layer, stream_bytes: int) -> Prepared:
        """Copies of the layer that hold ``stream_bytes`` at least; ``folder`` is not there yet."""


@dataclass(frozen=True)
class Plan:
    """What to measure; the defaults take some minutes on two cores.

    Attributes:
        shapes: Layers, as (N, K).
        kinds: Tokens and regime of the cases of each shape.
        threads: Threads of the sessions.
        pace: How long to measure.
        stream_bytes: In the regime ``streamed``, the weights that a contender rotates over, at least.
        copies: So many layers instead, whatever they hold; 0 to go by ``stream_bytes``.
        x_type: What x can be held by, where contenders take it in another type than float32.
    """

    shapes: tuple[tuple[int, int], ...] = SHAPES
    kinds: tuple[tuple[int, str], ...] = ((1, CACHED), (128, CACHED), (1, STREAMED))
    threads: tuple[int, ...] = (1, 2)
    pace: Pace = field(default_factory=Pace)
    stream_bytes: int = 640 * 2**20
    copies: int = 0
    x_type: type[np.floating[Any]] = np.float32


def quick() -> Plan:
    """Two shapes from cache: less than a minute."""
    return Plan(shapes=(SHAPES[0], SHAPES[3]), kinds=((1, CACHED), (128, CACHED)))


def run(
    library: Path,
    plan: Plan | None = None,
    *,
    peers: Sequence[Peer] = (*PEERS, T5),
    ours: Peer | None = None,
    idle: Peer = OVERHEAD,
    progress: Progress | None = None,
) -> OpBench:
    """Time the op of a library against its peers.

    Args:
        library: The op library, as ``bitcc.library_path`` gives it.
        plan: What to measure.
        peers: What to compare with.
        ours: What runs our op, and has to be exact; None for it on the CPU.
        idle: What computes nothing, in the same kind of session.
        progress: Called before each step with what comes, the steps done and their total number.

    Raises:
        TargetError: the library cannot be loaded.
        VerificationError: our op does not compute what it has to.
    """
    plan, ours = plan or Plan(), ours or BITCC
    start = perf_counter()
    here = machine.describe(library)
    steps = len(plan.shapes) * len(plan.kinds)
    results: list[CaseResult] = []
    for done, ((n, k), (tokens, regime)) in enumerate(itertools.product(plan.shapes, plan.kinds)):
        if progress is not None:
            progress(f"{n} x {k}, {tokens} token{'s' * (tokens > 1)}, {regime}", done, steps)
        layer = random_layer(n, k, tokens, plan.x_type)
        results += _Step(library, plan, layer, regime, (ours, *peers), idle).run()
    names = {contender.name: contender.about for contender in (ours, *peers)}
    cases = tuple(results)
    return OpBench(here, names, plan.pace.rounds, cases, means(cases), perf_counter() - start)


@dataclass(frozen=True)
class _Step:
    """One layer in one regime, with each number of threads; the first contender is ours."""

    library: Path
    plan: Plan
    layer: Layer
    regime: str
    contenders: tuple[Peer, ...]
    idle: Peer

    @property
    def ours(self) -> Peer:
        return self.contenders[0]

    def run(self) -> list[CaseResult]:
        with temporary.folder() as folder:
            stacks = {
                c.name: c.prepare(folder / c.name, self.layer, self.size(c, folder)) for c in self.contenders
            }
            idle = self.idle.prepare(folder / self.idle.name, random_layer(1, 1, 1), 0)
            wants = self.layer.references(max(s.copies for s in stacks.values() if s.computes))
            return [self.measure(stacks, idle, threads, wants) for threads in self.plan.threads]

    def size(self, contender: Peer, folder: Path) -> int:
        """Bytes of weights that a contender's copies are to hold."""
        if self.regime == CACHED:
            return 0
        if not self.plan.copies:
            return self.plan.stream_bytes
        return (
            self.plan.copies * contender.prepare(folder / f"{contender.name}-one", self.layer, 0).weight_bytes
        )

    def measure(
        self, stacks: dict[str, Prepared], idle: Prepared, threads: int, wants: list[NDArray[np.float32]]
    ) -> CaseResult:
        runners: dict[str, Runner] = {}
        timings = []
        for contender in self.contenders:
            stack = stacks[contender.name]
            timing = Timing(contender.name, copies=stack.copies, weight_bytes=stack.weight_bytes)
            try:
                runner = stack.open(self.layer.x, threads, self.library)
                runner()
                timing = replace(timing, error=_error(runner.outputs(), wants))
            except Exception as error:  # onnxruntime's errors have no common base
                if contender is self.ours:
                    raise
                timing = replace(timing, reason=first_line(error))
            else:
                timing = replace(timing, reason=self.fault(contender, timing))
            if not timing.reason:
                runners[contender.name] = runner
            timings.append(timing)
        runners[self.idle.name] = idle.open(np.ones((1, 1), np.float32), threads, self.library)
        others = machine.Others()
        samples = interleave(runners, self.plan.pace)
        return replace(self.result(threads, stacks, timings, samples), others=others.share())

    def fault(self, contender: Peer, timing: Timing) -> str:
        """Why a contender that ran is not timed: it computes something else."""
        if timing.error is not None and timing.error <= contender.tolerance:
            return ""
        text = f"its result differs by {timing.error:.1e} of max|y|, more than {contender.tolerance:.0e}"
        if contender is self.ours:
            n, k = self.layer.weights.shape
            raise VerificationError(
                text,
                where=f"bitcc::BitLinear, N = {n}, K = {k}, library `{self.library}`",
                hint="do not use this library; try BITCC_ISA=scalar, and report the CPU",
            )
        return text

    def result(
        self, threads: int, stacks: dict[str, Prepared], timings: list[Timing], samples: Samples
    ) -> CaseResult:
        (tokens, k), n = self.layer.x.shape, len(self.layer.weights)
        overhead = spread(samples.pop(self.idle.name)).median
        each, lost = {}, set()
        for name, found in samples.items():
            stack = stacks[name]
            paid = overhead if self.regime != STREAMED and stack.in_session else 0.0
            each[name] = [max(_LEAST, seconds - paid) / stack.copies for seconds in found]
            if spread(each[name]).median < _CLEAR * paid:
                lost.add(name)
        own = each[self.ours.name]
        done = tuple(_timed(timing, each, own, is_lost=timing.contender in lost) for timing in timings)
        return CaseResult(Case(n, k, tokens, threads, self.regime), done, overhead)


def _timed(timing: Timing, each: Samples, ours: Sequence[float], *, is_lost: bool) -> Timing:
    if timing.contender not in each:
        return timing
    samples = each[timing.contender]
    seconds = spread(samples)
    speed = None if is_lost else timing.weight_bytes / seconds.median / 1e9
    return replace(
        timing, seconds=seconds, samples=tuple(samples), ratio=ratio(samples, ours), gb_per_s=speed
    )


def _error(outputs: list[NDArray[np.float32]], wants: list[NDArray[np.float32]]) -> float:
    """The largest difference of any copy's output, relative to max|want|."""
    scale = float(np.max(np.abs(wants[0]))) or 1.0
    pairs = zip(outputs, wants, strict=False)  # some contender has more copies
    return max((float(np.max(np.abs(got - want))) for got, want in pairs), default=0.0) / scale
