"""All that is compared, and what is missing here."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import decoder_block, native, onnx_peers, yardsticks
from bitcc.bench.contenders import PEERS, T5
from bitcc.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bitcc.bench.op import Peer

_ONNX = (*PEERS, T5, onnx_peers.NBITS4, decoder_block.fake_quantized(PEERS[0]))
_OPTIONAL: dict[str, Callable[[], Peer]] = {
    "onnxsim": onnx_peers.onnxsim,
    "litespark": native.litespark,
    "ggml": native.ggml,
}
_YARDSTICKS: dict[str, Callable[[Path | None], Peer]] = {
    yardsticks.READ: yardsticks.read,
    yardsticks.PEAK: yardsticks.peak,
}
NAMES = (*(peer.name for peer in _ONNX), *_OPTIONAL, *_YARDSTICKS)
_UNMEASURED = {
    "bitnet.cpp": "its kernels are in no package on PyPI",
}


def find(names: tuple[str, ...] = NAMES, prebuilt: Path | None = None) -> tuple[list[Peer], dict[str, str]]:
    """The chosen peers that are here, and why others are not measured, by name.

    Args:
        names: What is chosen.
        prebuilt: A folder with the loops of the yardsticks; None to build them.
    """
    found: list[Peer] = [peer for peer in _ONNX if peer.name in names]
    missing = dict(_UNMEASURED)
    optional = _OPTIONAL | {name: partial(make, prebuilt) for name, make in _YARDSTICKS.items()}
    for name in (name for name in optional if name in names):
        try:
            found.append(optional[name]())
        except (ImportError, OSError) as error:  # noqa: PERF203 - each may be missing by itself
            missing[name] = first_line(error)
    return found, missing
