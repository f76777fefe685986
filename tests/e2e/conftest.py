"""What the end-to-end tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2e.command import EXAMPLE, Run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def example_bundle(bitcc_command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "bundle"
    done = bitcc_command("compile", EXAMPLE, "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder
