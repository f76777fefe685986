"""What the end-to-end tests share."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from e2e.command import EXAMPLE, Run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def bitcc_command() -> Run:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bitcc.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def example_bundle(bitcc_command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "bundle"
    done = bitcc_command("compile", EXAMPLE, "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder
