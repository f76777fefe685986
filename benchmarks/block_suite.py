"""A decoder block compiled by bitcc, against the same block with onnxruntime's own products."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

import bitcc
from benchmarks import decoder_block, onnx_peers
from bitcc import runtime, verify
from bitcc.bench import machine
from bitcc.bench.contenders import PEERS
from bitcc.bench.models import session_options
from bitcc.bench.rounds import Pace, interleave, ratio, spread

if TYPE_CHECKING:
    from collections.abc import Callable

_ORIGINAL = decoder_block.fake_quantized(PEERS[0])
_FORMS = (_ORIGINAL, *PEERS, onnx_peers.NBITS4)
_OURS = "bitcc"


@dataclass(frozen=True)
class Choice:
    """What to measure.

    Attributes:
        tokens: That enter the block at once.
        past: Tokens in the cache of keys and values.
        threads: Of each session.
        rounds: Rounds of timing.
        shape: Of the block.
    """

    tokens: tuple[int, ...] = (1, 128)
    past: int = 512
    threads: tuple[int, ...] = (1, 2)
    rounds: int = 15
    shape: decoder_block.Shape = field(default_factory=decoder_block.Shape)


def quick() -> Choice:
    """One thread, few rounds."""
    return Choice(threads=(1,), rounds=5)


def run(choice: Choice) -> dict[str, Any]:
    """Measure; the result is plain data, as ``report`` reads it."""
    cases = []
    for tokens in choice.tokens:
        with tempfile.TemporaryDirectory(prefix="bitcc-block-") as name:
            folder = Path(name)
            files = {form.name: folder / f"{form.name}.onnx" for form in _FORMS}
            for form in _FORMS:
                decoder_block.write(files[form.name], form, choice.shape, tokens, choice.past)
            bundle = bitcc.compile(files[_ORIGINAL.name], folder / "bundle", min_weights=0, verify=False)
            if len(bundle.packed) != len(choice.shape.layers()):
                raise SystemExit("bitcc did not pack all layers of the block")
            opens: dict[str, Callable[[ort.SessionOptions], ort.InferenceSession]] = {
                _OURS: partial(runtime.session, bundle)
            }
            opens |= {form: partial(_open, file) for form, file in files.items()}
            cases += [_case(choice, opens, tokens, threads) for threads in choice.threads]
    here = machine.describe(bitcc.library_path())
    about = {_OURS: "the original, compiled"} | {form.name: form.about for form in _FORMS}
    return {
        "suite": "block",
        "machine": asdict(here),
        "contenders": about,
        "rounds": choice.rounds,
        "cases": cases,
    }


def _case(
    choice: Choice,
    opens: dict[str, Callable[[ort.SessionOptions], ort.InferenceSession]],
    tokens: int,
    threads: int,
) -> dict[str, Any]:
    feeds = decoder_block.feeds(choice.shape, tokens, choice.past)
    sessions = {name: make(session_options(threads)) for name, make in opens.items()}
    outputs = {name: session.run(["y"], feeds) for name, session in sessions.items()}
    calls = {name: lambda session=session: session.run(None, feeds) for name, session in sessions.items()}
    others = machine.Others()
    samples = interleave(calls, Pace(rounds=choice.rounds))
    timings = {
        name: {
            "seconds": asdict(spread(found)),
            "ratio": ratio(found, samples[_OURS]),
            "difference": verify.distance(outputs[name], outputs[_OURS]),
        }
        for name, found in samples.items()
    }
    return {
        "tokens": tokens,
        "past": choice.past,
        "threads": threads,
        "others": others.share(),
        "timings": timings,
    }


def _open(file: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
