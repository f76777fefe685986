"""A tiny random BitNetForCausalLM, exported whole with its cache: 64 steps beside PyTorch, logit by logit.

Where an activation of the reference lies on a rounding boundary, float noise decides its code, and that
position and those that read it differ in their third digit (PyTorch, step by step, differs so from itself).
So of many random prompts those are compared whole whose text has no activation near a boundary; PyTorch
alone says which. Of all prompts, each position is compared that comes before the first such activation.

What such a network says is dull, a few tokens again and again. Its logits are not: they are off by half of
the largest if the cache forgets a token or exchanges two layers.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from bitnet_causal_lm.generate import greedy
from models.compiled_checkpoint import CompiledCheckpoint, check_linears, compile_checkpoint, step_by_step

if TYPE_CHECKING:
    from types import ModuleType

    from e2e.command import Run
    from numpy.typing import NDArray

pytestmark = pytest.mark.filterwarnings("default")  # those of torch and transformers are not ours

_TEXTS, _PROMPT, _STEPS = 128, 8, 64  # texts; tokens of each


@dataclass(frozen=True)
class Texts:
    """Random prompts and how PyTorch goes on; logits are of all tokens but the last."""

    tokens: NDArray[np.int64]  # [texts, prompt + steps]
    logits: NDArray[np.float32]  # [texts, prompt + steps - 1, vocabulary]
    clear: NDArray[np.bool_]  # [texts, prompt + steps - 1]: no activation until here is near a boundary


@pytest.fixture(scope="module", params=["packed", "offline", "online"])
def compiled(
    request: pytest.FixtureRequest,
    checkpoints: ModuleType,
    bitcc_command: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> CompiledCheckpoint:
    folder = tmp_path_factory.mktemp(request.param)
    checkpoints.save(checkpoints.random(seed=0), request.param, folder)
    reference = checkpoints.load(folder)
    # Not as a command, which would take as long again to import torch.
    importlib.import_module("bitnet_causal_lm.export").export(reference, folder / "model.onnx")
    return compile_checkpoint(reference, folder / "model.onnx", bitcc_command)


@pytest.fixture(scope="module")
def texts(compiled: CompiledCheckpoint, checkpoints: ModuleType) -> Texts:
    prompts = np.random.default_rng(0).integers(0, checkpoints.VOCABULARY, (_TEXTS, _PROMPT))
    said = checkpoints.greedy(compiled.reference, prompts, _STEPS)
    tokens = np.concatenate([prompts, said], axis=1)
    logits, margins = checkpoints.logits_and_margins(compiled.reference, tokens[:, :-1])
    return Texts(tokens, logits, clear=np.minimum.accumulate(margins, axis=1) > checkpoints.CLEAR)


def test_every_bit_linear_is_packed_and_nothing_else(
    compiled: CompiledCheckpoint, checkpoints: ModuleType
) -> None:
    check_linears(compiled, checkpoints)


def test_tokens_and_all_logits_of_64_steps_are_those_of_pytorch(
    compiled: CompiledCheckpoint, texts: Texts
) -> None:
    whole = np.flatnonzero(texts.clear.all(axis=1))
    assert whole.size > 0
    for name, session in compiled.sessions().items():
        for text in whole:
            tokens, want = texts.tokens[text], texts.logits[text]
            assert list(greedy(session, tokens[:_PROMPT].tolist(), _STEPS)) == tokens[_PROMPT:].tolist(), name
            got = step_by_step(session, tokens[None, :-1], prompt=_PROMPT)[0]
            assert got.shape == (_PROMPT + _STEPS - 1, want.shape[1])
            assert np.abs(got - want).max() < 1e-4 * np.abs(want).max(), name


def test_no_position_differs_before_an_activation_on_a_boundary(
    compiled: CompiledCheckpoint, texts: Texts
) -> None:
    for name, session in compiled.sessions().items():
        got = step_by_step(session, texts.tokens[:, :-1], prompt=_PROMPT)
        error = np.abs(got - texts.logits).max(axis=2) / np.abs(texts.logits).max()
        assert error[texts.clear].max() < 1e-5, name
        assert error.max() < 5e-2, name
