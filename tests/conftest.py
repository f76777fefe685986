"""What all tests share.

Hypothesis draws the same examples in every run: a failure in CI is a failure at home.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.command import Run

settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile("ci")

# folders whose tests share what takes long to build: kernels compiled for the host
_TOGETHER = ("tests/targets/cuda/", "tests/targets/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile` one worker runs a file or such a folder: what its tests share is made once."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 - only where it is used

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return next((folder for folder in _TOGETHER if file.startswith(folder)), file)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def bitcc_command() -> Run:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bitcc.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run
