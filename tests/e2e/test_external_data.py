"""Data in files beside the model: names that would leave the folder, or hit a file of the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from e2e.command import Run, refused
from onnx import TensorProto, helper

import bitcc
from bitcc import pipeline, verify
from bitcc.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


def dense(folder: Path, location: str, file: str = "") -> Path:
    """A model in which nothing is packed, so that it is copied; its weights are at ``location``."""
    folder.mkdir(exist_ok=True)
    (folder / (file or location)).parent.mkdir(exist_ok=True, parents=True)
    (folder / (file or location)).write_bytes(WEIGHTS.tobytes())
    tensor = TensorProto(name="w", dims=[64, 64], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(WEIGHTS.nbytes)}.items():
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 64]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


@pytest.mark.parametrize("location", ["../m/weights.bin", "sub/../../m/weights.bin", "sub/../weights.bin"])
def test_a_location_that_leads_out_and_back_writes_nothing_outside(tmp_path: Path, location: str) -> None:
    path = dense(tmp_path / "m", location, "weights.bin")
    (tmp_path / "m" / "sub").mkdir()
    (tmp_path / "out" / "m").mkdir(parents=True)
    (tmp_path / "out" / "m" / "weights.bin").write_text("precious")
    with pytest.raises(ModelError, match=r"outside of the model's folder, or its location may lead there"):
        bitcc.compile(path, tmp_path / "out" / "bundle")
    assert (tmp_path / "out" / "m" / "weights.bin").read_text() == "precious"
    assert not (tmp_path / "out" / "bundle").exists()


@pytest.mark.parametrize("location", ["..\\m\\weights.bin", "C:\\weights.bin", "C:weights.bin", "\\w"])
def test_so_is_one_that_does_on_windows_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(ModelError, match="may lead there"):
        bitcc.compile(dense(tmp_path / "m", location), tmp_path / "b")


def test_an_absolute_location_is_refused(tmp_path: Path) -> None:
    path = dense(tmp_path / "m", str(tmp_path / "m" / "weights.bin"), "weights.bin")
    with pytest.raises(ModelError, match="may lead there"):
        bitcc.compile(path, tmp_path / "b")


@pytest.mark.parametrize(
    "location", ["./model.onnx", "./bitcc.json", "Bitcc.JSON", "model.onnx/weights", "./MODEL.onnx"]
)
def test_a_file_of_the_bundle_is_not_replaced(tmp_path: Path, location: str) -> None:
    """Also where the location is spelled otherwise, or case makes no difference."""
    path = dense(tmp_path / "m", location)
    with pytest.raises(ModelError, match="its external data is called `"):
        bitcc.compile(path, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("location", ["./weights.bin", "sub//weights.bin", "./sub/./weights.bin"])
def test_a_location_in_another_spelling_is_one_of_the_bundle(tmp_path: Path, location: str) -> None:
    """And the bundle is whole: `bitcc verify` knows the file."""
    path = dense(tmp_path / "m", location)
    built = bitcc.compile(path, tmp_path / "b")
    name = "sub/weights.bin" if "sub" in location else "weights.bin"
    assert built.manifest.files.keys() == {"model.onnx", name}
    verified = verify.verify_bundle(built.path, path, None)
    assert (verified.status, verified.max_error_body) == ("passed", 0)


@pytest.mark.parametrize("location", ["a\0b", "a" * 300])
def test_a_location_that_no_file_can_have(bitcc_command: Run, tmp_path: Path, location: str) -> None:
    path = dense(tmp_path / "m", location, "weights.bin")
    for arguments in (("inspect", path), ("compile", path, "-o", tmp_path / "b")):
        refused(bitcc_command(*arguments), 1, "the data of `w` cannot be read")


def test_data_that_cannot_be_read_any_more_is_no_full_disk(tmp_path: Path) -> None:
    path = dense(tmp_path / "m", "weights.bin")

    def remove(what: str, *_: object) -> None:
        if what == "writing the model":
            (tmp_path / "m" / "weights.bin").unlink()

    with pytest.raises(ModelError, match=r"weights\.bin` cannot be read: No such file"):
        pipeline.compile_model(path, tmp_path / "b", pipeline.Request(), remove)
    assert [found.name for found in tmp_path.iterdir()] == ["m"]
