"""The command line as a user runs it, and the model that it is run on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bitcc import digest

if TYPE_CHECKING:
    import subprocess

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tiny_lm.onnx"


class Run(Protocol):
    """Run ``bitcc`` with these arguments."""

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It ended with this code, and an error of ours that has these words."""
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def reseal(folder: Path) -> None:
    """Write digests into the manifest of a bundle that was tampered with, as if bitcc had made it so."""
    manifest = json.loads((folder / "bitcc.json").read_text())
    manifest["files"] = {name: digest.sha256(folder / name) for name in manifest["files"]}
    (folder / "bitcc.json").write_text(json.dumps(manifest))
