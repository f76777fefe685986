"""The command line as a user runs it, and the model that it is run on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import subprocess

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tiny_lm.onnx"


class Run(Protocol):
    """Run ``bitcc`` with these arguments."""

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...
