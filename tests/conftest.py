"""What all tests share.

Hypothesis draws the same examples in every run: a failure in CI is a failure at home.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.command import Run

settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def bitcc_command() -> Run:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bitcc.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run
