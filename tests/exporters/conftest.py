"""What the tests of transformers' networks share."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


@pytest.fixture(scope="module")
def checkpoints() -> Iterator[ModuleType]:
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
