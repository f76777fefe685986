"""Bundles for several targets, and what is said about those that cannot run here."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from e2e.command import EXAMPLE

import bitcc
from bitcc import bundle, libraries, pipeline
from bitcc.errors import TargetError

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.command import Run

FOREIGN = "x86-64-windows"


@pytest.fixture(scope="session")
def two_targets(bitcc_command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example for this machine and for another one."""
    folder = tmp_path_factory.mktemp("two") / "bundle"
    done = bitcc_command(
        "compile", EXAMPLE, "-o", folder, "--target", libraries.host_target(), "--target", FOREIGN
    )
    assert done.returncode == 0, done.stderr
    assert "verification passed: " in done.stdout
    assert f"not run: this machine ({libraries.host_target()}) cannot run {FOREIGN}" in " ".join(
        done.stdout.split()
    )
    return folder


def test_one_bundle_holds_one_model_and_a_library_for_each_target(
    two_targets: Path, example_bundle: Path
) -> None:
    both, one = bundle.read(two_targets), bundle.read(example_bundle)
    both.check_digests()
    assert both.manifest.files == one.manifest.files
    names = [entry.name for entry in both.manifest.targets]
    assert names == [libraries.host_target(), FOREIGN]
    assert [entry.library for entry in both.manifest.targets] == [
        f"{libraries.host_target()}/{both.library(libraries.host_target()).name}",
        f"{FOREIGN}/bitcc_ops.dll",
    ]


def test_a_session_takes_the_library_of_this_machine(two_targets: Path, example_bundle: Path) -> None:
    feeds = {"tokens": np.array([[1, 2, 3]]), "past": np.zeros((3, 2, 1, 4, 0, 64), np.float32)}
    got, want = (bitcc.session(folder).run(None, feeds) for folder in (two_targets, example_bundle))
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_damaged_library_for_another_machine_is_noticed(
    bitcc_command: Run, two_targets: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(two_targets, copy)
    with bundle.read(copy).library(FOREIGN).open("ab") as library:
        library.write(b"more")
    done = bitcc_command("verify", copy)
    assert done.returncode == 1
    assert f"`{FOREIGN}/bitcc_ops.dll` is not what bitcc wrote" in done.stderr


def test_a_bundle_for_another_machine_says_what_it_is_for(tmp_path: Path) -> None:
    built = bitcc.compile(EXAMPLE, tmp_path / "b", targets=FOREIGN)
    certificate = built.manifest.verify
    assert certificate["status"] == "partly passed"
    assert certificate["reason"].startswith(
        f"not run: this machine ({libraries.host_target()}) cannot run {FOREIGN}, so run `bitcc verify`"
    )
    assert certificate["max_error_body"] < 1e-2
    assert (tmp_path / "b" / "bitcc_ops.dll").is_file()
    with pytest.raises(bitcc.BitccError, match=f"it holds a library for {FOREIGN}, not for ") as raised:
        bitcc.session(tmp_path / "b")
    assert raised.value.hint == f"compile the model again with --target {libraries.host_target()}"


def test_a_model_is_compiled_for_a_target_at_least(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no target is named"):
        bitcc.compile(EXAMPLE, tmp_path / "bundle", targets=[])
    assert not (tmp_path / "bundle").exists()


def test_a_target_that_cannot_be_built_is_an_error_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(name: str) -> None:
        if name == FOREIGN:
            raise TargetError("`ziglang` is not installed", where=f"target `{name}`")

    monkeypatch.setattr(libraries, "check", unavailable)
    steps: list[str] = []
    request = pipeline.Request(targets=(libraries.host_target(), FOREIGN))
    with pytest.raises(TargetError, match="is not installed"):
        pipeline.compile_model(EXAMPLE, tmp_path / "b", request, lambda what, *_: steps.append(what))
    assert not steps
    assert not list(tmp_path.iterdir())


def test_doctor_builds_for_another_machine_and_says_what_was_tested(bitcc_command: Run) -> None:
    done = bitcc_command("doctor", "--target", FOREIGN, "--json")
    assert done.returncode == 0, done.stdout
    checks = {check["name"]: check["detail"] for check in json.loads(done.stdout)["checks"]}
    assert checks["kernel library"].endswith("KB; Windows 10 or newer)")
    assert {"kernels avx2", "kernels scalar"} <= checks.keys()
    assert checks["tested"] == "run under Wine"
    assert "libraries" in checks["cache"]


def test_doctor_refuses_a_target_that_it_does_not_know(bitcc_command: Run) -> None:
    done = bitcc_command("doctor", "--target", "pdp11")
    assert done.returncode == 1
    assert "there is no target `pdp11`" in done.stderr


def test_targets_says_what_each_runs_on_and_what_was_tested(bitcc_command: Run) -> None:
    rows = {row["name"]: row for row in json.loads(bitcc_command("targets", "--json").stdout)["targets"]}
    assert rows["x86-64"]["needs"].startswith("Linux with glibc 2.17")
    assert rows["x86-64-macos"]["proof"] == "built and inspected, never run by us"
    printed = bitcc_command("targets").stdout
    assert all(name in printed and row["needs"] in printed for name, row in rows.items())
