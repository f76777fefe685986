"""`bitcc tune` writes a file that `bitcc compile --tiles` builds with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

import bitcc
from bitcc import cli, libraries, targets, tuning
from bitcc.bundle import Manifest
from bitcc.errors import TargetError

if TYPE_CHECKING:
    from click.testing import Result

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny_lm.onnx"
SCALAR = targets.get("x86-64").variants[-1]
TILES = replace(SCALAR.tiles, gemm_tokens=3)
CHANGES = (
    targets.Change("gemv", "1 tiles", "1 tiles", 1.0),
    targets.Change("gemm", "1 tiles, 4 tokens", "1 tiles, 3 tokens", 1.25),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the search is asked for; it answers at once."""
    asked: dict[str, Any] = {}

    def search(target: targets.Target, isa: str, **more: Any) -> tuple[targets.Tiles, Any]:
        asked.update(more, target=target.name, isa=isa)
        return TILES, CHANGES

    monkeypatch.setattr(targets, "tune_variant", search)
    return asked


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


def test_what_is_found_is_stored_and_told(asked: dict[str, Any], tmp_path: Path) -> None:
    done = run("tune", "--target", "x86-64", "--isa", "scalar", "--seconds", "3", "-o", tmp_path / "t.json")
    assert done.exit_code == 0, done.output
    assert (asked["target"], asked["isa"], asked["seconds"], asked["remote"]) == ("x86-64", "scalar", 3, None)
    assert targets.read_tiles(tmp_path / "t.json").tiles == {"scalar": TILES}
    lines = [line.split() for line in done.output.splitlines()]
    assert ["gemv", "1", "tiles", "the", "same"] in lines
    assert ["gemm", "1", "tiles,", "4", "tokens", "1", "tiles,", "3", "tokens", "1.25"] in lines


def test_json_names_every_kernel(asked: dict[str, Any], tmp_path: Path) -> None:
    done = run("tune", "--target", "x86-64", "--isa", "scalar", "-o", tmp_path / "t.json", "--json")
    assert asked["seconds"] == 120
    plain = json.loads(done.output)
    assert (plain["target"], plain["isa"]) == ("x86-64", "scalar")
    assert [(kernel["kernel"], kernel["ratio"]) for kernel in plain["kernels"]] == [
        ("gemv", 1),
        ("gemm", 1.25),
    ]


def test_another_machine_may_measure(asked: dict[str, Any], tmp_path: Path) -> None:
    rpc = ("--rpc", "board:9190", "--key", "arm")
    assert run("tune", "--target", "arm64", "--isa", "neon", *rpc, "-o", tmp_path / "t.json").exit_code == 0
    assert asked["remote"] == targets.Remote("board", 9190, "arm")
    assert targets.read_tiles(tmp_path / "t.json").machine == "board:9190 arm"


@pytest.mark.parametrize(
    "wrong",
    [("--rpc", "board"), ("--rpc", ":1"), ("--rpc", "board:x"), ("--rpc", "board:²"), ("--key", "arm")],
)
@pytest.mark.usefixtures("asked")
def test_wrong_usage_is_told(tmp_path: Path, wrong: tuple[str, str]) -> None:
    assert run("tune", *wrong, "-o", tmp_path / "t.json").exit_code == 2
    assert not (tmp_path / "t.json").exists()


def test_a_file_that_cannot_be_written_is_told_before_the_search(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    arguments = ("tune", "--target", "x86-64", "--isa", "scalar", "-o")
    for output in (tmp_path, tmp_path / "none" / "t.json"):
        assert run(*arguments, output).exit_code == 1
    assert not asked


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("older", ["", targets.TileFile("x86-64", "older", {}).to_json()])
def test_an_older_file_is_replaced(tmp_path: Path, older: str) -> None:
    (tmp_path / "t.json").write_text(older)
    done = run("tune", "--target", "x86-64", "--isa", "scalar", "-o", tmp_path / "t.json")
    assert done.exit_code == 0, done.output
    assert targets.read_tiles(tmp_path / "t.json").tiles == {"scalar": TILES}


@pytest.mark.parametrize("other", ["a model", Manifest("1", {}, {}, (), ()).to_json()])
def test_another_file_is_not_replaced(asked: dict[str, Any], tmp_path: Path, other: str) -> None:
    (tmp_path / "other").write_text(other)
    done = run("tune", "--target", "x86-64", "--isa", "scalar", "-o", tmp_path / "other", "--json")
    assert done.exit_code == 1
    assert "it exists and is not a file of tile sizes" in json.loads(done.output)["error"]
    assert not asked
    assert (tmp_path / "other").read_text() == other


@pytest.mark.usefixtures("asked")
def test_the_kernels_of_another_machine_have_to_be_named() -> None:
    with pytest.raises(TargetError, match="which kernels to tune on another machine") as raised:
        tuning.tune("x86-64", seconds=1, remote=targets.Remote("board", 1))
    assert raised.value.hint == "give --isa"


@pytest.mark.parametrize("isa", [(), ("--isa", "neon")])
def test_what_this_machine_cannot_run_is_not_tuned_on_it(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, isa: tuple[str, ...]
) -> None:
    monkeypatch.setattr(libraries, "host_targets", lambda: ("x86-64",))
    done = run("tune", "--target", "arm64", *isa, "-o", tmp_path / "t.json")
    assert isinstance(done.exception, TargetError)
    assert "this machine (x86-64) cannot run arm64" in str(done.exception)
    assert done.exception.hint.startswith("give --rpc HOST:PORT")
    assert not asked
    assert not (tmp_path / "t.json").exists()


def write(path: Path, target: str) -> Path:
    path.write_text(targets.TileFile(target, "", {"scalar": TILES}).to_json(), encoding="utf-8")
    return path


def test_a_bundle_gets_a_library_with_these_tiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built: list[targets.Target] = []

    def build(target: targets.Target, **_: Any) -> Path:
        built.append(target)
        return EXAMPLE

    monkeypatch.setattr(targets, "build_library", build)
    tiles = write(tmp_path / "t.json", "x86-64")
    bitcc.compile(
        EXAMPLE,
        tmp_path / "bundle",
        targets=["arm64", "x86-64"],
        min_weights=10**5,
        verify=False,
        tiles=tiles,
    )
    assert built[0] == targets.get("arm64")
    assert built[1].variants[-1].tiles == TILES
    libraries.library_path("x86-64", tiles=tiles)
    assert built[2] == built[1]


def test_tiles_for_another_target_are_refused(tmp_path: Path) -> None:
    tiles = write(tmp_path / "t.json", "arm64")
    with pytest.raises(TargetError, match="it is for target `arm64`, which is not compiled for"):
        bitcc.compile(EXAMPLE, tmp_path / "bundle", targets=["x86-64"], tiles=tiles)
    assert not (tmp_path / "bundle").exists()
