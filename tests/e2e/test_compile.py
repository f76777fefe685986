"""The main job through the command line and the Python interface."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from e2e.command import EXAMPLE, Run

import bitcc
from bitcc import bundle, verify
from bitcc.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path


def test_every_bit_linear_of_the_example_is_packed_and_proven(example_bundle: Path) -> None:
    opened = bundle.read(example_bundle)
    assert len(opened.packed) == 21
    assert [layer.op for layer in opened.kept] == ["MatMul"]  # the head
    assert all(layer.max_error is not None and layer.max_error <= 1e-5 for layer in opened.packed)
    assert all(layer.bytes_after < layer.bytes_before / 7 for layer in opened.packed)
    opened.check_digests()


def test_the_whole_model_was_verified_with_and_without_the_library(example_bundle: Path) -> None:
    certificate = bundle.read(example_bundle).manifest.verify
    assert certificate["status"] == "passed"
    assert certificate["max_error_library"] <= certificate["tolerance"]
    assert certificate["library_equals_body"] is True


def test_json_output_is_the_manifest(bitcc_command: Run, tmp_path: Path) -> None:
    done = bitcc_command("compile", EXAMPLE, "-o", tmp_path / "b", "--json", "--no-verify")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "b" / "bitcc.json").read_text())
    assert json.loads(done.stdout)["verify"]["status"] == "not run"


def test_the_same_input_gives_the_same_bytes(
    bitcc_command: Run, example_bundle: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    assert bitcc_command("compile", EXAMPLE, "-o", again).returncode == 0
    first = sorted(p.relative_to(example_bundle) for p in example_bundle.rglob("*"))
    assert first == sorted(p.relative_to(again) for p in again.rglob("*"))
    assert all((example_bundle / name).read_bytes() == (again / name).read_bytes() for name in first)


def test_large_tensors_begin_on_pages(example_bundle: Path) -> None:
    model = onnx.load(example_bundle / "model.onnx", load_external_data=False)
    offsets = [
        int(entry.value)
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "offset"
    ]
    assert len(offsets) >= 21
    assert all(offset % 4096 == 0 for offset in offsets)


def test_the_compiled_model_is_a_valid_onnx_model(example_bundle: Path) -> None:
    onnx.checker.check_model(str(example_bundle / "model.onnx"))


def test_a_session_of_the_bundle_runs_our_kernels(example_bundle: Path) -> None:
    session = bitcc.session(example_bundle)
    original = ort.InferenceSession(EXAMPLE, providers=["CPUExecutionProvider"])
    feeds = verify.random_inputs(original)
    assert verify.distance(session.run(None, feeds), original.run(None, feeds)) < 1e-2


def test_min_weights_leaves_small_layers_float(bitcc_command: Run, tmp_path: Path) -> None:
    done = bitcc_command("compile", EXAMPLE, "-o", tmp_path / "b", "--min-weights", "100000", "--no-verify")
    assert done.returncode == 0, done.stderr
    opened = bundle.read(tmp_path / "b")
    assert {layer.N * layer.K for layer in opened.packed} == {768 * 256}
    assert any(layer.fix.startswith("--min-weights ") for layer in opened.kept)


def test_strict_refuses_to_leave_a_ternary_layer(bitcc_command: Run, tmp_path: Path) -> None:
    arguments = ["compile", EXAMPLE, "-o", tmp_path / "b", "--min-weights", "100000", "--strict"]
    done = bitcc_command(*arguments)
    assert done.returncode == 1
    assert "12 layers with ternary weights would stay as they are" in done.stderr
    assert not (tmp_path / "b").exists()


def test_a_model_without_bit_linear_is_left_as_it_was(bitcc_command: Run, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["M", 64])],
        [onnx.helper.make_tensor_value_info("y", 1, ["M", 64])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "dense.onnx")
    done = bitcc_command("compile", tmp_path / "dense.onnx", "-o", tmp_path / "b")
    assert done.returncode == 3
    assert "error: no BitLinear was packed" in done.stderr
    assert "the weights are dense" in done.stdout
    assert (tmp_path / "b" / "model.onnx").read_bytes() == (tmp_path / "dense.onnx").read_bytes()


def test_a_model_in_memory_is_compiled(tmp_path: Path) -> None:
    built = bitcc.compile(ir.load(EXAMPLE), tmp_path / "b")
    assert len(built.packed) == 21
    assert built.manifest.verify["reason"] == "the original is not a file"
    assert bitcc.session(tmp_path / "b").get_inputs()[0].name == "tokens"


@pytest.mark.parametrize("model", [onnx.ModelProto(), b"model.onnx", None], ids=["proto", "bytes", "none"])
def test_what_is_neither_a_path_nor_a_model_is_refused(tmp_path: Path, model: Any) -> None:
    with pytest.raises(ModelError, match=f"not {type(model).__name__}$") as raised:
        bitcc.compile(model, tmp_path / "b")
    assert "onnx_ir.from_proto" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_inspect_says_what_compile_will_do(bitcc_command: Run, example_bundle: Path) -> None:
    of_model = bitcc_command("inspect", EXAMPLE, "--json")
    of_bundle = bitcc_command("inspect", example_bundle, "--json")
    assert of_model.returncode == of_bundle.returncode == 0
    assert json.loads(of_model.stdout) == json.loads(of_bundle.stdout)
    assert "21 of 22 layers packed" in bitcc_command("inspect", EXAMPLE).stdout


def test_targets_and_doctor_speak_json(bitcc_command: Run) -> None:
    targets = json.loads(bitcc_command("targets", "--json").stdout)["targets"]
    assert [row["isas"][-1] for row in targets if row["name"] == "x86-64"] == ["scalar"]
    doctor = bitcc_command("doctor", "--json")
    report = json.loads(doctor.stdout)
    assert report["ok"], report
    assert doctor.returncode == 0
    assert {check["name"] for check in report["checks"]} >= {"machine", "zig", "kernel library", "kernels"}
