"""Bad input: each a clear error with a way out, and nothing half-written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import models
import numpy as np
import onnx
import pytest
from e2e.command import EXAMPLE, Run, refused

import bitcc
from bitcc.errors import BitccError

if TYPE_CHECKING:
    from pathlib import Path


def _external(folder: Path) -> Path:
    """The example with its weights in a file beside it."""
    model = onnx.load(EXAMPLE)
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_a_missing_file(bitcc_command: Run, tmp_path: Path) -> None:
    done = bitcc_command("compile", tmp_path / "none.onnx", "-o", tmp_path / "b")
    refused(done, 1, "none.onnx", "there is no such file")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe(bitcc_command: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(bitcc_command("inspect", tmp_path / "pipe"), 1, "it is a pipe or a device", "hint: give a file")


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x07", bytes(range(256)) * 9])
def test_a_file_that_is_not_onnx(bitcc_command: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    refused(bitcc_command("compile", tmp_path / "bad.onnx", "-o", tmp_path / "b"), 1, "not an ONNX model")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.onnx"]


def test_a_truncated_file(bitcc_command: Run, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(EXAMPLE.read_bytes()[:100_000])
    refused(bitcc_command("inspect", tmp_path / "cut.onnx"), 1, "truncated", "hint: ")


def test_missing_external_data(bitcc_command: Run, tmp_path: Path) -> None:
    path = _external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    refused(bitcc_command("compile", path, "-o", tmp_path / "b"), 1, "`weights.bin`, which is missing")
    assert not (tmp_path / "b").exists()


def test_external_data_that_is_too_short(bitcc_command: Run, tmp_path: Path) -> None:
    path = _external(tmp_path)
    with (tmp_path / "weights.bin").open("r+b") as stream:
        stream.truncate(1000)
    refused(bitcc_command("compile", path, "-o", tmp_path / "b"), 1, "too short", "hint: ")


def test_external_data_whose_stated_length_is_too_short(tmp_path: Path) -> None:
    path = _external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    next(entry for entry in tensor.external_data if entry.key == "length").value = "16"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BitccError, match=rf"`weights\.bin` is too short for `{tensor.name}`: truncated"):
        bitcc.compile(path, tmp_path / "b")


@pytest.mark.parametrize("name", ["bitcc.json", "model.onnx"])
def test_external_data_that_would_replace_a_file_of_the_bundle(tmp_path: Path, name: str) -> None:
    """Of a model that is copied as it is."""
    data = onnx.numpy_helper.from_array(np.arange(64, dtype=np.float32), "data")
    out = onnx.helper.make_tensor_value_info("out", 1, [64])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["data"], ["out"])], "g", [], [out], [data])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location=name, size_threshold=0)
    with pytest.raises(BitccError, match=f"its external data is called `{name}`"):
        bitcc.compile(tmp_path / "m.onnx", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_external_data_outside_of_the_folder(bitcc_command: Run, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = _external(inner)
    shutil.move(inner / "weights.bin", tmp_path / "weights.bin")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../weights.bin"
    path.write_bytes(model.SerializeToString())
    refused(bitcc_command("compile", path, "-o", tmp_path / "b"), 1, "outside of the model's folder")


def test_an_old_opset(bitcc_command: Run, tmp_path: Path) -> None:
    model = models.build("torchscript", opset=15)
    model.opset_import[0].version = 12
    onnx.save(model, tmp_path / "old.onnx")
    done = bitcc_command("compile", tmp_path / "old.onnx", "-o", tmp_path / "b", "--min-weights", "0")
    refused(done, 1, "opset is 12", "version_converter")
    assert not (tmp_path / "b").exists()


def test_a_compiled_model_is_not_compiled_again(
    bitcc_command: Run, example_bundle: Path, tmp_path: Path
) -> None:
    done = bitcc_command("compile", example_bundle / "model.onnx", "-o", tmp_path / "b")
    refused(done, 1, "compiled by bitcc before")


def test_a_folder_is_no_model(bitcc_command: Run, example_bundle: Path, tmp_path: Path) -> None:
    done = bitcc_command("compile", example_bundle, "-o", tmp_path / "b")
    refused(done, 1, "it is a folder", "hint: give the .onnx file in it, or for a bundle")
    done = bitcc_command("verify", example_bundle, "--against", example_bundle)
    refused(done, 1, "it is a folder", "hint: give the .onnx file in it, or for a bundle")
    done = bitcc_command("verify", example_bundle, "--against", tmp_path / "none.onnx")
    refused(done, 1, "there is no such file")


def test_an_unknown_target(bitcc_command: Run, tmp_path: Path) -> None:
    done = bitcc_command("compile", EXAMPLE, "-o", tmp_path / "b", "--target", "pdp11")
    refused(done, 1, "`pdp11`", "hint: choose one of `x86-64`, ")


def test_an_existing_output_is_replaced_only_by_force(bitcc_command: Run, tmp_path: Path) -> None:
    output = tmp_path / "b"
    assert bitcc_command("compile", EXAMPLE, "-o", output, "--no-verify").returncode == 0
    before = (output / "bitcc.json").read_bytes()
    refused(bitcc_command("compile", EXAMPLE, "-o", output), 1, "it exists", "--force")
    assert (output / "bitcc.json").read_bytes() == before
    forced = bitcc_command("compile", EXAMPLE, "-o", output, "--no-verify", "--force")
    assert forced.returncode == 0, forced.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_force_is_no_advice_for_what_it_would_not_replace(bitcc_command: Run, tmp_path: Path) -> None:
    done = bitcc_command("compile", EXAMPLE, "-o", tmp_path)
    refused(done, 1, "it exists and is not a bundle", "hint: give another folder")
    assert "--force" not in done.stderr


def test_force_does_not_replace_what_is_no_bundle(bitcc_command: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    refused(bitcc_command("compile", EXAMPLE, "-o", tmp_path, "--force"), 1, "is not a bundle", "hint: ")
    assert (tmp_path / "thesis.txt").exists()


def test_an_output_that_cannot_be_written(bitcc_command: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = bitcc_command("compile", EXAMPLE, "-o", tmp_path / "file" / "b")
    refused(done, 1, "cannot write there: a folder on the way is a file", "hint: give another folder")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    command = [sys.executable, "-m", "bitcc.cli", "compile", EXAMPLE, "-o", tmp_path / "b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    refused(done, 1, "cannot write the bundle", "hint: ")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_under_the_cache_is_told(tmp_path: Path) -> None:
    """The code generator would end the process, and leave what it has begun."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    cache = tmp_path / "cache"
    onnx.save(models.build("dynamo"), tmp_path / "m.onnx")
    command = [sys.executable, "-m", "bitcc.cli", "compile", tmp_path / "m.onnx", "-o", tmp_path / "b"]
    environment = os.environ | {"BITCC_CACHE_DIR": str(cache)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=limit, env=environment
    )
    refused(done, 1, f"the cache folder `{cache}` cannot be written: File too large", "BITCC_CACHE_DIR")
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "cache"}
    assert [path.name for path in cache.iterdir()] == ["libraries"]


def test_a_full_disk_under_temporary_files_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bitcc.cli", "inspect", EXAMPLE, "--json"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000)),
    )
    problem = f"`{tmp_path}`: temporary files cannot be written: File too large"
    refused(done, 1, problem, "hint: free some space, or set TMPDIR")
    assert json.loads(done.stdout)["error"] == problem
    assert [path.name for path in tmp_path.iterdir() if path.name != ".ses"] == []  # which is onnxruntime's


def test_kernels_that_do_not_exist_are_named(
    bitcc_command: Run, example_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BITCC_ISA", "bad")
    for arguments in (("compile", EXAMPLE, "-o", tmp_path / "b"), ("verify", example_bundle)):
        done = bitcc_command(*arguments)
        refused(
            done,
            1,
            "BITCC_ISA=bad names no kernels that run here",
            "hint: unset BITCC_ISA, or set it to one of",
        )
    assert not (tmp_path / "b").exists()
    doctor = bitcc_command("doctor")
    assert doctor.returncode == 1
    assert "BITCC_ISA=bad names no kernels" in doctor.stdout


def test_a_path_that_onnxruntime_does_not_take_is_told(example_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"b\xff")
    shutil.copytree(example_bundle, folder)
    # not in this process, whose list of mapped files other tests read
    command = [sys.executable, "-c", "import bitcc, sys; bitcc.session(sys.argv[1])", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "bitcc.errors.BitccError: `" in done.stderr
    assert "onnxruntime takes no path that is not UTF-8" in done.stderr


def test_so_is_that_of_a_bundle_without_a_library(tmp_path: Path) -> None:
    dense = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    content = """<ir_version: 8, opset_import: ["": 17]>
        dense (float[n, 64] x) => (float[n, 64] y) { y = MatMul(x, w) }"""
    onnx.save(models.parse(content, {"w": dense}), tmp_path / "m.onnx")
    folder = tmp_path / os.fsdecode(b"b\xff")
    built = bitcc.compile(tmp_path / "m.onnx", folder)
    assert not built.manifest.targets
    with pytest.raises(BitccError, match="onnxruntime takes no path that is not UTF-8"):
        bitcc.session(built)


def test_errors_of_the_interface_are_ours(tmp_path: Path) -> None:
    with pytest.raises(BitccError, match="there is no such file") as caught:
        bitcc.compile(tmp_path / "none.onnx", tmp_path / "b")
    assert caught.value.exit_code == 1
