"""What the end-to-end tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from e2e.command import EXAMPLE, Run


@pytest.fixture(scope="session")
def example_bundle(bitcc_command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "bundle"
    done = bitcc_command("compile", EXAMPLE, "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def broken(example_bundle: Path, tmp_path: Path) -> Path:
    """A copy of a good bundle, to be broken."""
    return Path(shutil.copytree(example_bundle, tmp_path / "broken"))
