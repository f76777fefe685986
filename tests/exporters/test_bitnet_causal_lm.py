"""transformers' BitNetForCausalLM as users ship it: from a checkpoint through the exporter to a bundle.

PyTorch is the reference. Its sums and onnxruntime's differ in the last place, and an activation code that
lies on a rounding boundary can fall to either side: then the logits differ in their third digit, in the
export as in what bitcc makes of it. Where the reference is clear of boundaries, float rounding is all.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from bitnet_causal_lm.generate import empty_cache, greedy

import bitcc
from bitcc import bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.command import Run
    from models import bitnet_checkpoints
    from numpy.typing import NDArray
    from transformers import BitNetForCausalLM

pytestmark = pytest.mark.filterwarnings("default")  # those of torch and transformers are not ours

_EXPORT = Path(__file__).resolve().parents[2] / "examples" / "bitnet_causal_lm" / "export.py"
_PROMPT, _STEPS = 8, 64  # tokens
_CLEAR = 1e-4  # codes; float noise in front of a quantizer is some 1e-5 of a code


@dataclass(frozen=True)
class Compiled:
    """One checkpoint, in PyTorch and compiled."""

    reference: BitNetForCausalLM
    bundle: Path

    def sessions(self) -> dict[str, ort.InferenceSession]:
        """The compiled model with the library and without it."""
        body = ort.InferenceSession(str(self.bundle / "model.onnx"), providers=["CPUExecutionProvider"])
        return {"library": bitcc.session(self.bundle), "body": body}


@pytest.fixture(scope="module")
def checkpoints() -> Iterator[bitnet_checkpoints]:
    """The module that makes them, or a skip if its packages are missing."""
    for needed in ("torch", "transformers", "accelerate", "onnxscript"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: run `make test-torch`")
    torch = importlib.import_module("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a network so small only waits for a second one
    torch.compiler.set_stance("force_eager")
    yield importlib.import_module("models.bitnet_checkpoints")
    torch.compiler.set_stance("default")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(checkpoints: bitnet_checkpoints) -> BitNetForCausalLM:
    return checkpoints.trained()


@pytest.fixture(scope="module", params=["packed", "offline", "online"])
def compiled(
    request: pytest.FixtureRequest,
    checkpoints: bitnet_checkpoints,
    trained: BitNetForCausalLM,
    bitcc_command: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> Compiled:
    folder = tmp_path_factory.mktemp(request.param)
    checkpoints.save(trained, request.param, folder)
    export = [sys.executable, _EXPORT, folder, "-o", folder / "model.onnx"]
    exported = subprocess.run(export, capture_output=True, text=True, check=False)
    assert exported.returncode == 0, exported.stderr
    # The layers of keys and values are below the default size from which packing is worth it.
    done = bitcc_command("compile", folder / "model.onnx", "-o", folder / "bundle", "--min-weights", "0")
    assert done.returncode == 0, done.stderr
    return Compiled(checkpoints.load(folder), folder / "bundle")


def test_every_bit_linear_is_packed_and_nothing_else(
    compiled: Compiled, checkpoints: bitnet_checkpoints
) -> None:
    opened = bundle.read(compiled.bundle)
    layers = checkpoints.bit_linears(compiled.reference)
    assert sorted((f.N, f.K) for f in opened.packed) == sorted(
        (layer.out_features, layer.in_features) for layer in layers.values()
    )
    assert {f.activation for f in opened.packed} == {"int8_token"}
    assert len(opened.kept) == 1  # the head, whose weights are the embedding's
    assert opened.manifest.verify["status"] == "passed"


def test_greedy_tokens_are_those_of_pytorch(compiled: Compiled, checkpoints: bitnet_checkpoints) -> None:
    prompt = list(checkpoints.TEXT[:_PROMPT])
    want = checkpoints.greedy(compiled.reference, prompt, _STEPS)
    assert bytes(want) == checkpoints.TEXT[_PROMPT:][:_STEPS]
    for name, session in compiled.sessions().items():
        assert list(greedy(session, prompt, _STEPS)) == want, name


def test_logits_of_a_prompt_and_of_a_step_are_those_of_pytorch(
    compiled: Compiled, checkpoints: bitnet_checkpoints
) -> None:
    tokens = np.random.default_rng(0).integers(0, 256, (64, 6))
    want, margins = checkpoints.logits_and_margins(compiled.reference, tokens)
    clear = margins > _CLEAR
    assert clear.sum() >= 5
    for name, session in compiled.sessions().items():
        got = _prompt_and_step(session, tokens)
        error = np.abs(got - want).max(axis=(1, 2)) / np.abs(want).max()
        assert error[clear].max() < 1e-5, name
        assert error.max() < 5e-2, name


def _prompt_and_step(session: ort.InferenceSession, tokens: NDArray[np.int64]) -> NDArray[Any]:
    """Logits of all tokens; the last is read on its own, with the cache of the others."""
    cache = empty_cache(session, len(tokens))
    first, *present = session.run(None, {"input_ids": tokens[:, :-1], **cache})
    cache = dict(zip(cache, present, strict=True))
    last, *_ = session.run(None, {"input_ids": tokens[:, -1:], **cache})
    return np.concatenate([first, last], axis=1)
