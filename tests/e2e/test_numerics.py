"""``--numerics`` from the command line and from Python, to the manifest and the op."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import models
import onnx
import pytest

import bitcc
from bitcc.verify import runs

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.command import Run


@pytest.fixture
def half(tmp_path: Path) -> Path:
    path = tmp_path / "half.onnx"
    onnx.save(models.build("half_bias", half="float16"), path)
    return path


@pytest.mark.parametrize(("numerics", "stated"), [("faithful", "faithful"), ("fp32", "float32")])
def test_the_command_line_compiles_what_was_asked_for(
    bitcc_command: Run, half: Path, tmp_path: Path, numerics: str, stated: str
) -> None:
    done = bitcc_command("compile", half, "-o", tmp_path / "b", "--numerics", numerics, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["layers"][0]["numerics"] == stated
    (node,) = models.bit_linears(onnx.load(tmp_path / "b" / "model.onnx"))
    is_half = models.attributes(node)["act_type"] == onnx.TensorProto.FLOAT16
    assert is_half is (numerics == "faithful")


def test_the_manifest_of_the_python_interface_is_the_same(half: Path, tmp_path: Path) -> None:
    built = bitcc.compile(half, tmp_path / "b", numerics="faithful")
    assert [layer.numerics for layer in built.packed] == ["faithful"]


def test_a_model_in_half_precision_may_be_further_from_what_it_rounds_itself(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "by_library", lambda _built, _feeds, by_body: [y * 1.03 for y in by_body])
    verdict = bitcc.compile(half, tmp_path / "b").manifest.verify
    assert (verdict["status"], verdict["tolerance"]) == ("passed", 0.05)
    assert verdict["max_error_library"] > 0.01
    onnx.save(models.build("dynamo"), tmp_path / "single.onnx")
    with pytest.raises(bitcc.BitccError, match=r"the difference of 3.0e-02 of max\|y\| is over 1e-02"):
        bitcc.compile(tmp_path / "single.onnx", tmp_path / "c")


def test_other_numerics_are_refused(bitcc_command: Run, half: Path, tmp_path: Path) -> None:
    with pytest.raises(bitcc.BitccError, match="numerics cannot be `fp8`") as refused:
        bitcc.compile(half, tmp_path / "b", numerics="fp8")
    assert refused.value.hint == "it is one of `fp32`, `faithful`"
    assert bitcc_command("compile", half, "-o", tmp_path / "b", "--numerics", "fp8").returncode == 2
    assert not (tmp_path / "b").exists()
