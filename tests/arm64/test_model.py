"""A whole model in onnxruntime for arm64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from arm64 import environment
from arm64.machine import Machine
from e2e.command import EXAMPLE
from generate import generate

import bitcc

if TYPE_CHECKING:
    from pathlib import Path

    from bitcc.bundle import Bundle

TOKENS = 40


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The example for this machine."""
    return bitcc.compile(EXAMPLE, tmp_path_factory.mktemp("here") / "bundle", verify=False)


@pytest.mark.parametrize("release", environment.RELEASES)
@pytest.mark.parametrize("cpu", ["cortex-a53", "max"])
def test_the_example_writes_the_same_text(
    folder: Path, bundle: Bundle, here: Bundle, cpu: str, release: str
) -> None:
    text, _ = generate(bitcc.session(here), b"Raised when ", TOKENS)
    arguments = (bundle.model, bundle.library("arm64"), str(TOKENS))
    assert Machine(folder, cpu).python(release, "write_text.py", *arguments) == text


def test_model_and_weights_are_those_of_any_other_target(bundle: Bundle, here: Bundle) -> None:
    for name in ("model.onnx", "model.onnx.data"):
        assert (bundle.path / name).read_bytes() == (here.path / name).read_bytes()


def test_where_the_library_cannot_run_the_body_is_verified(bundle: Bundle) -> None:
    verdict = bundle.manifest.verify
    assert verdict["status"] == "not run"
    assert verdict["reason"].startswith("the library was not run: it is built for arm64, this host is ")
    assert verdict["max_error_library"] is None
    assert verdict["max_error_body"] < 1e-5
