"""A whole model in onnxruntime for arm64."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from arm64 import environment
from arm64.machine import Machine
from generate import generate

import bitcc

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.command import Run

    from bitcc.bundle import Bundle

TOKENS = 40


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


def test_the_library_is_for_arm64_and_needs_an_old_libc_alone(bundle: Bundle) -> None:
    content = bundle.library("arm64").read_bytes()
    assert content[:4] == b"\x7fELF"
    assert int.from_bytes(content[18:20], "little") == 183  # EM_AARCH64
    versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", content)
    assert versions
    assert all((int(major), int(minor)) <= (2, 17) for major, minor in versions)
    needed = set(re.findall(rb"\0([\w+.-]+\.so[.\d]*)(?=\0)", content))
    assert needed <= {b"libbitcc_ops.so", b"libc.so.6", b"libm.so.6"}


def test_where_the_library_cannot_run_the_body_is_verified(bundle: Bundle) -> None:
    verdict = bundle.manifest.verify
    assert verdict["status"] == "partly passed"
    assert verdict["reason"].endswith("cannot run arm64, so run `bitcc verify` on one that can")
    assert verdict["max_error_library"] is None
    assert verdict["max_error_body"] < 1e-5


def test_doctor_says_which_kernels_run_where(bitcc_command: Run, bundle: Bundle) -> None:
    done = bitcc_command("doctor", "--target", bundle.manifest.targets[0].name)
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if "kernels" in line]
    assert [line.split()[2] for line in lines] == ["i8mm", "dotprod", "neon", "scalar"]
    for line, core in zip(lines, ("X2", "N1", "A53", "none"), strict=True):
        assert core in line


def test_doctor_knows_no_other_machines(bitcc_command: Run) -> None:
    done = bitcc_command("doctor", "--target", "pdp11")
    assert done.returncode == 1
    assert "there is no target `pdp11`" in done.stderr
