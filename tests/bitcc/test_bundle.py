"""A bundle is there whole or not at all, also while it is replaced."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitcc import bundle
from bitcc.bundle import Bundle, Manifest, TargetEntry, staging
from bitcc.errors import BundleError
from bitcc.facts import KEPT, PACKED, LayerFacts


def _write(output: Path, text: str, *, force: bool = True) -> None:
    with bundle.writing(output, force=force) as staging:
        (staging / bundle.MANIFEST).write_text(text)
        (staging / text).touch()


def _found(output: Path) -> set[str]:
    assert [path.name for path in output.parent.iterdir()] == [output.name]
    return {path.name for path in output.iterdir()} - {bundle.MANIFEST}


@pytest.mark.parametrize("exchanged", [True, False])
def test_force_replaces_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exchanged: bool
) -> None:
    if not exchanged:
        monkeypatch.setattr(staging, "exchanged", lambda *_: False)
    _write(tmp_path / "out", "one")
    _write(tmp_path / "out", "two")
    assert _found(tmp_path / "out") == {"two"}


def test_no_moment_is_without_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux exchanges the folders in one step: nothing is moved out of the way before."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    if not staging.exchanged(tmp_path / "one", tmp_path / "two"):
        pytest.skip("this file system cannot exchange folders")
    for name in ("one", "two"):
        (tmp_path / name).rmdir()
    _write(tmp_path / "out", "one")

    def no_rename(*_: Any) -> None:
        raise AssertionError("a folder was moved")

    monkeypatch.setattr(Path, "rename", no_rename)
    _write(tmp_path / "out", "two")
    assert _found(tmp_path / "out") == {"two"}


def test_what_cannot_be_replaced_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "out", "one")
    monkeypatch.setattr(staging, "exchanged", lambda *_: False)
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name.startswith(".out.") and target == tmp_path / "out":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(BundleError, match="No space left"):
        _write(tmp_path / "out", "two")
    assert _found(tmp_path / "out") == {"one"}


def test_an_error_inside_leaves_the_old_bundle(tmp_path: Path) -> None:
    _write(tmp_path / "out", "one")
    with pytest.raises(KeyError), bundle.writing(tmp_path / "out", force=True):
        raise KeyError
    assert _found(tmp_path / "out") == {"one"}


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to("there/out")
    _write(link, "one", force=False)
    _write(link, "two")
    assert link.is_symlink()
    assert _found(tmp_path / "there" / "out") == {"two"}
    assert {path.name for path in tmp_path.iterdir()} == {"link", "there"}


def test_the_folder_that_one_is_in_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "out", "one")
    monkeypatch.chdir(tmp_path / "out")
    _write(Path(), "two")
    assert _found(tmp_path / "out") == {"two"}


@pytest.mark.parametrize("name", ["a" * 300, "circle", "a\0b"])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(BundleError, match="cannot write there") as raised:
        _write(tmp_path / name, "one")
    assert raised.value.hint == "give another folder"


def test_folders_on_the_way_are_left_only_with_a_bundle(tmp_path: Path) -> None:
    output = tmp_path / "on" / "the" / "way"
    with pytest.raises(KeyError), bundle.writing(output, force=False):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    _write(output, "one", force=False)
    assert _found(output) == {"one"}


def test_folders_on_the_way_go_where_nothing_can_be_written_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging, "_beside", full)
    with pytest.raises(BundleError, match="cannot write there: No space left"):
        _write(tmp_path / "on" / "the" / "way", "one")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_a_bundle_has_the_rights_that_the_user_gives_new_folders(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        _write(tmp_path / "out", "one")
        _write(tmp_path / "out", "two")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_bundle_that_another_process_wrote_meanwhile_is_replaced_only_by_force(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(BundleError, match="it exists"), bundle.writing(output, force=False):
        _write(output, "theirs", force=False)
    assert _found(output) == {"theirs"}
    with bundle.writing(output, force=True) as staging:
        _write(output, "theirs again")
        (staging / bundle.MANIFEST).touch()
    assert _found(output) == set()


def test_a_bundle_is_shown_in_one_line() -> None:
    one = LayerFacts("fc", "MatMul", 64, 64, "ternary", "tensor", "float", PACKED, "", 1, 1)
    targets = (TargetEntry("x86-64", "a", "", ()), TargetEntry("arm64", "b", "", ()))
    manifest = Manifest("1", {}, {}, targets, (one, replace(one, status=KEPT)))
    assert repr(Bundle(Path("out"), manifest)) == "<Bundle 'out': 1 of 2 layers packed, for x86-64, arm64>"
    empty = Bundle(Path("out"), Manifest("1", {}, {}, (), ()))
    assert repr(empty) == "<Bundle 'out': 0 of 0 layers packed, for no target>"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing", "there is no such folder"),
        ("file", "it is a file, and a bundle is a folder"),
        ("folder", "`bitcc.json` cannot be read"),
        ("x" * 300, "`bitcc.json` cannot be read"),
    ],
)
def test_what_is_no_bundle_is_told_of(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(BundleError, match=problem) as raised:
        bundle.read(tmp_path / name)
    assert raised.value.hint
