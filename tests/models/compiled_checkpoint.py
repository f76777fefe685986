"""A checkpoint of BitNetForCausalLM in PyTorch, and what bitcc makes of its export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from bitnet_causal_lm.generate import empty_cache

import bitcc
from bitcc import bundle

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from e2e.command import Run
    from numpy.typing import NDArray
    from transformers import BitNetForCausalLM


@dataclass(frozen=True)
class CompiledCheckpoint:
    """One checkpoint, in PyTorch and compiled."""

    reference: BitNetForCausalLM
    bundle: Path

    def sessions(self) -> dict[str, ort.InferenceSession]:
        """The compiled model with the library and without it."""
        body = ort.InferenceSession(str(self.bundle / "model.onnx"), providers=["CPUExecutionProvider"])
        return {"library": bitcc.session(self.bundle), "body": body}


def compile_checkpoint(reference: BitNetForCausalLM, model: Path, run: Run) -> CompiledCheckpoint:
    """Compile what was exported of a checkpoint; the bundle lies beside it."""
    # Layers so small are below the default size from which packing is worth it.
    done = run("compile", model, "-o", model.with_name("bundle"), "--min-weights", "0")
    assert done.returncode == 0, done.stderr
    return CompiledCheckpoint(reference, model.with_name("bundle"))


def check_linears(compiled: CompiledCheckpoint, checkpoints: ModuleType) -> None:
    """Every bit linear was packed, and nothing else."""
    opened = bundle.read(compiled.bundle)
    layers = checkpoints.bit_linears(compiled.reference)
    assert sorted((f.N, f.K) for f in opened.packed) == sorted(
        (layer.out_features, layer.in_features) for layer in layers.values()
    )
    assert {f.activation for f in opened.packed} == {"int8_token"}
    assert len(opened.kept) == 1  # the head, whose weights are the embedding's
    assert opened.manifest.verify["status"] == "passed"


def step_by_step(session: ort.InferenceSession, tokens: NDArray[np.int64], prompt: int) -> NDArray[Any]:
    """Logits [batch, sequence, vocabulary] of tokens [batch, sequence].

    The first ``prompt`` of them are read at once, the others one by one, with the cache of those before.
    """
    cache = empty_cache(session, len(tokens))
    logits = []
    for new in np.split(tokens, range(prompt, tokens.shape[1]), axis=1):
        some, *present = session.run(None, {"input_ids": new, **cache})
        cache = dict(zip(cache, present, strict=True))
        logits.append(some)
    return np.concatenate(logits, axis=1)
