"""What is said of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime as ort

from bitcc import runtime_ops
from bitcc.bench import machine

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_it_names_the_kernels_the_cpu_and_the_runtime(library: Path) -> None:
    here = machine.describe(library)
    assert here.isa == runtime_ops.library_info(library).selected
    assert here.cpu
    assert here.cores >= 1
    assert here.onnxruntime == ort.__version__


def test_a_bundle_without_library_has_no_kernels() -> None:
    assert machine.describe(None).isa == "none"


def test_others_are_not_this_process() -> None:
    others = machine.Others()
    sum(range(2_000_000))
    share = others.share()
    assert share is None or 0 <= share <= 1


def test_others_are_unknown_without_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_STAT", tmp_path / "absent")
    assert machine.Others().share() is None
