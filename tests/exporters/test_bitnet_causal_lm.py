"""transformers' BitNetForCausalLM as users ship it: from a checkpoint through the exporter to a bundle.

PyTorch is the reference. Its sums and onnxruntime's differ in the last place, and an activation code that
lies on a rounding boundary can fall to either side: then the logits differ in their third digit, in the
export as in what bitcc makes of it. Where the reference is clear of boundaries, float rounding is all.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from bitnet_causal_lm.generate import greedy
from models.compiled_checkpoint import CompiledCheckpoint, check_linears, compile_checkpoint, step_by_step

if TYPE_CHECKING:
    from types import ModuleType

    from e2e.command import Run
    from transformers import BitNetForCausalLM

pytestmark = pytest.mark.filterwarnings("default")  # those of torch and transformers are not ours

_EXPORT = Path(__file__).resolve().parents[2] / "examples" / "bitnet_causal_lm" / "export.py"
_PROMPT, _STEPS = 8, 64  # tokens


@pytest.fixture(scope="module")
def trained(checkpoints: ModuleType) -> BitNetForCausalLM:
    return checkpoints.trained()


@pytest.fixture(scope="module", params=["packed", "offline", "online"])
def compiled(
    request: pytest.FixtureRequest,
    checkpoints: ModuleType,
    trained: BitNetForCausalLM,
    bitcc_command: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> CompiledCheckpoint:
    folder = tmp_path_factory.mktemp(request.param)
    checkpoints.save(trained, request.param, folder)
    export = [sys.executable, _EXPORT, folder, "-o", folder / "model.onnx"]
    exported = subprocess.run(export, capture_output=True, text=True, check=False)
    assert exported.returncode == 0, exported.stderr
    return compile_checkpoint(checkpoints.load(folder), folder / "model.onnx", bitcc_command)


def test_every_bit_linear_is_packed_and_nothing_else(
    compiled: CompiledCheckpoint, checkpoints: ModuleType
) -> None:
    check_linears(compiled, checkpoints)


def test_greedy_tokens_are_those_of_pytorch(compiled: CompiledCheckpoint, checkpoints: ModuleType) -> None:
    prompt = list(checkpoints.TEXT[:_PROMPT])
    want = checkpoints.greedy(compiled.reference, np.array([prompt]), _STEPS)[0].tolist()
    assert bytes(want) == checkpoints.TEXT[_PROMPT:][:_STEPS]
    for name, session in compiled.sessions().items():
        assert list(greedy(session, prompt, _STEPS)) == want, name


def test_logits_of_a_prompt_and_of_a_step_are_those_of_pytorch(
    compiled: CompiledCheckpoint, checkpoints: ModuleType
) -> None:
    tokens = np.random.default_rng(0).integers(0, checkpoints.VOCABULARY, (64, 6))
    want, margins = checkpoints.logits_and_margins(compiled.reference, tokens)
    clear = margins.min(axis=1) > checkpoints.CLEAR
    assert clear.sum() >= 5
    for name, session in compiled.sessions().items():
        got = step_by_step(session, tokens, prompt=5)
        error = np.abs(got - want).max(axis=(1, 2)) / np.abs(want).max()
        assert error[clear].max() < 1e-5, name
        assert error.max() < 5e-2, name
