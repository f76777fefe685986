"""A library and a bundle for arm64, and emulated machines to run them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from arm64.machine import CPUS, Machine
from e2e.command import EXAMPLE

import bitcc

if TYPE_CHECKING:
    from bitcc.bundle import Bundle

FOLDER = "BITCC_ARM64_ENVIRONMENT"


@pytest.fixture(scope="session")
def folder() -> Path:
    """The environment of `make test-arm64`."""
    if FOLDER not in os.environ:
        pytest.skip(f"no arm64 to run on: `make test-arm64` makes one, or {FOLDER} names its folder")
    return Path(os.environ[FOLDER]).absolute()


@pytest.fixture(scope="session", params=CPUS)
def machine(folder: Path, request: pytest.FixtureRequest) -> Machine:
    return Machine(folder, request.param)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The example for arm64."""
    return bitcc.compile(EXAMPLE, tmp_path_factory.mktemp("arm64") / "bundle", targets=["arm64"])


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The example for this machine."""
    return bitcc.compile(EXAMPLE, tmp_path_factory.mktemp("here") / "bundle", verify=False)
