"""The main job on the shipped example: compile a ternary language model, and write with it.

    python examples/demo.py            (or: make demo)

Prints what was found, the sizes, text from the original and from the compiled model, the largest
difference between them, and how fast each writes. Needs bitcc only.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
from generate import generate
from rich.console import Console

import bitcc
from bitcc import report, verify
from bitcc.pipeline import Request, compile_model

if TYPE_CHECKING:
    from bitcc.bundle import Bundle

_HERE = Path(__file__).resolve().parent
_ROUNDS = 3


def main() -> None:
    """Run the demo."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", type=Path, default=_HERE / "tiny_lm.onnx")
    arguments.add_argument("--prompt", default="Raised when ")
    arguments.add_argument("--tokens", type=int, default=160, help="bytes to generate")
    options = arguments.parse_args()
    console = Console(highlight=False, markup=False)
    with tempfile.TemporaryDirectory() as folder:
        bundle = _compile(console, options.model, Path(folder) / "bundle")
        original, compiled = _session(options.model), bitcc.session(bundle, _options())
        _compare(console, original, compiled, options.prompt.encode(), options.tokens)


def _compile(console: Console, model: Path, output: Path) -> Bundle:
    console.print(f"compiling {model.name}")
    started = time.perf_counter()
    steps: list[str] = []

    def say(what: str, _done: int, _count: int) -> None:
        if what.startswith("kernels") and what not in steps:  # only when they are not in the cache
            steps.append(what)
            console.print(f"  {what}")

    bundle = compile_model(model, output, Request(), say)
    console.print(report.layers_table(bundle.manifest.layers))
    console.print(report.summary(bundle.manifest.layers))
    after = sum(path.stat().st_size for path in (bundle.model, bundle.path / "model.onnx.data"))
    console.print(f"model on disk: {report.size(model.stat().st_size)} before, {report.size(after)} after")
    library = bundle.path / bundle.manifest.targets[0].library
    console.print(f"kernel library: {report.size(library.stat().st_size)}")
    console.print(f"compiled in {time.perf_counter() - started:.1f} s\n")
    return bundle


def _compare(
    console: Console,
    original: ort.InferenceSession,
    compiled: ort.InferenceSession,
    prompt: bytes,
    tokens: int,
) -> None:
    seconds: dict[str, float] = {}
    texts: dict[str, bytes] = {}
    for _ in range(_ROUNDS):  # in turn, and the best of each: another program may be running
        for name, session in (("original", original), ("compiled", compiled)):
            texts[name], spent = generate(session, prompt, tokens)
            seconds[name] = min(spent, seconds.get(name, spent))
    for name, text in texts.items():
        console.print(f"{name}: {(prompt + text).decode('ascii', 'replace')!r}")
    same = texts["original"] == texts["compiled"]
    console.print(f"\nthe same tokens: {'yes' if same else 'NO'}")
    error = _largest_difference(original, compiled, prompt + texts["original"])
    console.print(f"largest difference of the logits: {error:.1e} of their maximum")
    rates = {name: (tokens - 1) / spent for name, spent in seconds.items()}
    for name, rate in rates.items():
        console.print(f"{name}: {rate:.0f} tokens/s")
    console.print(f"speed: {rates['compiled'] / rates['original']:.2f} times the original")


def _largest_difference(original: ort.InferenceSession, compiled: ort.InferenceSession, text: bytes) -> float:
    """Over the logits of the whole text, read at once."""
    (shape,) = (value.shape for value in original.get_inputs() if value.name == "past")
    layers, _, _, heads, _, width = shape
    feeds = {
        "tokens": np.frombuffer(text, np.uint8).astype(np.int64)[None],
        "past": np.zeros((layers, 2, 1, heads, 0, width), np.float32),
    }
    runs = [session.run(["logits"], feeds) for session in (compiled, original)]
    return verify.distance(*runs)


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # the model is tiny: a second thread costs more than it gives
    return options


def _session(model: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(model), _options(), providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
