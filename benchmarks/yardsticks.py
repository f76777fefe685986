"""What the machine can do at most, measured in the rounds of the contenders.

A shared machine is not equally fast at all times: so its roofs are contenders like all others, and
the time of a roof over ours in the same round is our share of it.
"""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from benchmarks import peaks
from bitcc import runtime_ops
from bitcc.formats import t2

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from numpy.typing import NDArray

    from bitcc.bench.contenders import Layer

READ, PEAK = "read", "peak"
_STREAMS, _AHEAD = (1, 2, 4, 8), (0, 1024, 4096)
_PART = 4096  # bytes; what a thread reads begins at a multiple
_LEAST_MACS = 1 << 32  # of one call, some milliseconds: the call itself counts for little
_LEAST_TOKENS = 32  # with fewer, the instruction isn't what limits


@dataclass(frozen=True)
class Roof:
    """Work that is split among threads.

    Attributes:
        pool: The threads.
        parts: What each does.
    """

    pool: ThreadPoolExecutor
    parts: list[Callable[[], object]]

    def __call__(self) -> None:
        """Do all of it once."""
        list(self.pool.map(lambda part: part(), self.parts))

    def outputs(self) -> list[NDArray[np.float32]]:
        """Nothing is computed."""
        return []


@dataclass(frozen=True)
class Reading:
    """As many bytes as the packed weights of ``copies`` layers, read by the fastest of several loops.

    Attributes:
        loops: Where the loops are.
        copies: Layers.
        weight_bytes: Of one, in format ``t2``.
    """

    loops: ctypes.CDLL
    copies: int
    weight_bytes: int
    in_session: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    def open(self, _x: NDArray[np.float32], threads: int, library: Path) -> Roof:
        """Fill the memory and find the fastest loop.

        Raises:
            ValueError: one layer alone is read from a cache, which has no roof here.
        """
        if self.copies == 1:
            raise ValueError("one layer is not read from memory")
        function = peaks.reader(self.loops, _peak_of(library))
        data = np.ones(self.copies * self.weight_bytes, np.uint8)
        size = len(data) // threads // _PART * _PART
        pool = peaks.pool(threads)

        def read(start: int, ahead: int, streams: int) -> object:
            return function(data.ctypes.data + start, size, ahead, streams)

        ways = [
            Roof(pool, [partial(read, i * size, ahead, streams) for i in range(threads)])
            for streams, ahead in itertools.product(_STREAMS, _AHEAD)
        ]
        return min(ways, key=_seconds)


@dataclass(frozen=True)
class Multiplying:
    """As many multiply-adds as ``copies`` times the layer, on registers alone.

    Attributes:
        loops: Where the loops are.
        tokens: Rows of the input.
        macs: Multiply-adds of the layer.
        copies: So often, that the call counts for little.
        weight_bytes: None is read.
    """

    loops: ctypes.CDLL
    tokens: int
    macs: int
    copies: int
    weight_bytes: int = 0
    in_session: ClassVar[bool] = False
    computes: ClassVar[bool] = False

    def open(self, _x: NDArray[np.float32], threads: int, library: Path) -> Roof:
        """Choose the instruction that the kernels of the library are made of.

        Raises:
            ValueError: they have none, or there are too few tokens for it to be what limits.
        """
        if self.tokens < _LEAST_TOKENS:
            raise ValueError(f"fewer than {_LEAST_TOKENS} tokens")
        variant = _peak_of(library)
        rounds = ctypes.c_int64(peaks.rounds_for(variant, self.macs * self.copies // threads))
        function = getattr(self.loops, f"peak_{variant}")
        return Roof(peaks.pool(threads), [partial(function, rounds)] * threads)


@dataclass(frozen=True)
class Yardstick:
    """A roof as a contender; its ratio is our share of it.

    Attributes:
        name: ``read`` or ``peak``.
        about: What runs.
        loops: Where the loops are.
    """

    name: str
    about: str
    loops: ctypes.CDLL
    tolerance: ClassVar[float] = 0.0

    def prepare(self, _: Path, layer: Layer, stream_bytes: int) -> Reading | Multiplying:
        """The work that the layer is compared with."""
        tokens, (n, k) = len(layer.x), layer.weights.shape
        if self.name == PEAK:
            macs = n * k * tokens
            return Multiplying(self.loops, tokens, macs, -(-_LEAST_MACS // macs))
        weight_bytes = int(np.prod(t2.packed_shape(n, k)))
        return Reading(self.loops, max(1, -(-stream_bytes // weight_bytes)), weight_bytes)


def read(prebuilt: Path | None = None) -> Yardstick:
    """How long the bytes of the weights in ``t2`` take to be read from memory, and nothing else.

    Raises:
        OSError: the loops are not for this machine, or cannot be built.
    """
    return Yardstick(READ, "the bytes of our weights in t2, read by a loop", peaks.load(prebuilt))


def peak(prebuilt: Path | None = None) -> Yardstick:
    """How long the multiply-adds of the layer take on registers alone.

    Raises:
        OSError: the loops are not for this machine, or cannot be built.
    """
    about = "the multiply-adds of the layer by the instruction of our kernels, on registers"
    return Yardstick(PEAK, about, peaks.load(prebuilt))


def _peak_of(library: Path) -> str:
    isa = runtime_ops.library_info(library).selected or "none"
    variant = peaks.variant_of(isa)
    if variant is None:
        raise ValueError(f"kernels `{isa}` have no peak")
    return variant


def _seconds(call: Callable[[], None]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start
