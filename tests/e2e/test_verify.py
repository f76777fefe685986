"""``bitcc verify``: what it compares, what it leaves out and says so, and what fails it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from e2e.command import EXAMPLE, Run, refused, reseal
from onnx import helper, numpy_helper

import bitcc
from bitcc import libraries, pipeline, verify
from bitcc.errors import BundleError, ModelError, VerificationError
from bitcc.verify import runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bitcc.verify.outputs import Outputs

SLICED = """<ir_version: 8, opset_import: ["": 17]>
    sliced (float[n, 4] x, float[m, 4] z) => (float[n, 4] y, int64[1] rows, float[k, 4] u) {
        y = MatMul(x, w)
        shape = Shape(x)
        rows = Slice(shape, start, end)
        u = Identity(z)
    }"""
SLICES = {"w": np.eye(4, dtype=np.float32), "start": np.array([0]), "end": np.array([1])}
THERE = "so run `bitcc verify` on one that can"


def test_a_bundle_of_another_model_fails_verification(
    bitcc_command: Run, example_bundle: Path, tmp_path: Path
) -> None:
    model = onnx.load(EXAMPLE)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 1 and tensor.dims[0] > 16:
            array = onnx.numpy_helper.to_array(tensor) * np.float32(1.5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, tmp_path / "other.onnx")
    done = bitcc_command("verify", example_bundle, "--against", tmp_path / "other.onnx")
    refused(done, 4, "is over", "hint: ")
    good = bitcc_command("verify", example_bundle, "--against", EXAMPLE, "--json")
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["status"] == "passed"


def test_a_library_that_computes_something_else_fails(
    example_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "by_library", lambda _built, _feeds, by_body: [y * 1.5 for y in by_body])
    found = verify.verify_bundle(example_bundle, EXAMPLE, None)
    assert (found.status, found.library_equals_body) == ("failed", False)
    assert found.max_error_library == pytest.approx(0.5, rel=1e-2)
    assert found.max_error_body == pytest.approx(0, abs=1e-2)
    assert verify.verify_bundle(example_bundle, EXAMPLE, None, tolerance=0.6).status == "passed"


def test_a_function_body_that_computes_something_else_fails(
    example_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[Outputs] = []

    def flat(outputs: Sequence[Any]) -> Outputs:
        computed.append([np.asarray(y) * (1 + len(computed)) for y in outputs])
        return computed[-1]

    monkeypatch.setattr(verify, "flat", flat)  # the original's outputs, then twice those of the body
    monkeypatch.setattr(runs, "by_library", lambda *_: computed[0])
    found = verify.verify_bundle(example_bundle, EXAMPLE, None)
    assert (found.status, found.max_error_library) == ("failed", 0)
    assert found.max_error_body == pytest.approx(1, rel=1e-2)


def test_a_tolerance_that_is_no_number_fails(example_bundle: Path) -> None:
    found = verify.verify_bundle(example_bundle, EXAMPLE, None, float("nan"))
    assert (found.status, found.max_error_library) == ("failed", pytest.approx(0, abs=1e-2))


def test_a_bundle_for_another_machine_is_verified_without_its_library(
    bitcc_command: Run, broken: Path
) -> None:
    manifest = json.loads((broken / "bitcc.json").read_text())
    manifest["targets"][0]["name"] = "pdp11"
    (broken / "bitcc.json").write_text(json.dumps(manifest))
    done = bitcc_command("verify", broken, "--against", EXAMPLE, "--json")
    assert done.returncode == 0, done.stderr
    certificate = json.loads(done.stdout)
    assert certificate["status"] == "partly passed"
    assert certificate["reason"].startswith("not run: this machine (")
    assert certificate["reason"].endswith(f") cannot run pdp11, {THERE}")
    assert certificate["against"] == "original"
    assert certificate["max_error_library"] is None
    assert certificate["max_error_body"] < 1e-2
    spoken = bitcc_command("verify", broken, "--against", EXAMPLE)
    words = "of max|y| without (random inputs, seed 0, against the original); not run: this machine"
    assert words in spoken.stdout
    assert "verification partly passed: " in spoken.stdout
    asked = bitcc_command("verify", broken, "--against", EXAMPLE, "--target", "x86-64")
    refused(asked, 1, "it holds a library for pdp11, not for x86-64")


def test_a_model_is_compiled_for_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(libraries, "host_targets", lambda: ("pdp11",))
    built = bitcc.compile(EXAMPLE, tmp_path / "b", targets=["x86-64"])
    assert built.manifest.verify["status"] == "partly passed"
    assert built.manifest.verify["reason"] == f"not run: this machine (pdp11) cannot run x86-64, {THERE}"


def test_a_large_model_is_verified_only_if_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    onnx.save(models.build("dynamo"), tmp_path / "m.onnx")
    monkeypatch.setattr(pipeline, "_MAX_VERIFIED", 1000)
    left = bitcc.compile(tmp_path / "m.onnx", tmp_path / "left", min_weights=0).manifest.verify
    assert (left["status"], left["max_error_library"]) == ("not run", None)
    assert left["reason"].endswith("; run `bitcc verify --against`")
    asked = bitcc.compile(tmp_path / "m.onnx", tmp_path / "asked", min_weights=0, verify=True).manifest.verify
    assert asked["status"] == "passed"


def test_an_input_that_random_values_make_no_sense_for_is_named() -> None:
    text = helper.make_tensor_value_info("text", onnx.TensorProto.STRING, [1])
    out = helper.make_tensor_value_info("out", onnx.TensorProto.STRING, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["text"], ["out"])], "g", [text], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with pytest.raises(ModelError, match=r"the input `text` is tensor\(string\)"):
        verify.random_inputs(session)


def test_inputs_that_are_no_npz(bitcc_command: Run, example_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "inputs.npz").write_bytes(b"nonsense")
    done = bitcc_command("verify", example_bundle, "--inputs", tmp_path / "inputs.npz")
    refused(done, 1, "not an .npz file")


def test_verify_of_a_missing_original_is_an_error(tmp_path: Path) -> None:
    onnx.save(models.build("dynamo"), tmp_path / "m.onnx")
    bitcc.compile(tmp_path / "m.onnx", tmp_path / "out", min_weights=0)
    with pytest.raises(ModelError, match="there is no such file"):
        verify.verify_bundle(tmp_path / "out", tmp_path / "none.onnx", None)
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(ModelError, match=r"not an \.npz file"):
        verify.verify_bundle(tmp_path / "out", tmp_path / "m.onnx", tmp_path / "x.npy")


def test_without_the_original_the_library_is_compared_with_the_function_body(
    bitcc_command: Run, example_bundle: Path
) -> None:
    done = bitcc_command("verify", example_bundle)
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert words.startswith("files and packed weights are whole verification passed: ")
    assert "with the library (random inputs, seed 0, against the function body); not compared" in words
    certificate = json.loads(bitcc_command("verify", example_bundle, "--json").stdout)
    assert certificate["against"] == "function body"
    assert certificate["max_error_library"] < 1e-2
    assert certificate["max_error_body"] is None
    assert certificate["reason"] == "not compared with the original: give it with --against"


def test_without_the_original_and_the_machine_nothing_is_compared(bitcc_command: Run, broken: Path) -> None:
    manifest = json.loads((broken / "bitcc.json").read_text())
    manifest["targets"][0]["name"] = "pdp11"
    (broken / "bitcc.json").write_text(json.dumps(manifest))
    done = bitcc_command("verify", broken)
    refused(done, 1, "hint: give the original model with --against")
    words = (
        "are whole, but nothing was compared: not compared with the original: give it with --against; not run"
    )
    assert f"{words}: this machine" in done.stderr
    assert THERE in done.stderr
    assert done.stdout == ""


def test_without_the_original_and_a_library_nothing_is_compared(tmp_path: Path) -> None:
    """Nothing was packed: the bundle holds the model alone, which would be compared with itself."""
    path = tmp_path / "m.onnx"
    onnx.save(models.parse(SLICED, SLICES), path)
    built = bitcc.compile(path, tmp_path / "b")
    assert not built.manifest.targets
    with pytest.raises(BundleError, match="are whole, but nothing was compared") as caught:
        verify.verify_bundle(built.path, None, None)
    assert caught.value.hint == "give the original model with --against"
    assert verify.verify_bundle(built.path, path, None).status == "passed"


def test_dimensions_of_other_names_have_other_sizes(tmp_path: Path) -> None:
    """A model that takes a size from the wrong input gives the same where all sizes are the same."""
    onnx.save(models.parse(SLICED, SLICES), tmp_path / "m.onnx")
    onnx.save(models.parse(SLICED.replace("Shape(x)", "Shape(z)"), SLICES), tmp_path / "other.onnx")
    built = bitcc.compile(tmp_path / "m.onnx", tmp_path / "b")
    assert verify.verify_bundle(built.path, tmp_path / "other.onnx", None).status == "failed"


def test_so_do_not_those_of_a_model_that_refuses_that(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(models.parse(SLICED.replace("Identity(z)", "Add(x, z)"), SLICES), path)
    built = bitcc.compile(path, tmp_path / "b")
    found = verify.verify_bundle(built.path, path, None)
    assert (found.status, found.inputs) == ("passed", "random inputs, seed 0")


@pytest.mark.parametrize("change", ["one output more", "another type"])
def test_an_original_with_other_outputs_fails(
    bitcc_command: Run, example_bundle: Path, change: str, tmp_path: Path
) -> None:
    model = onnx.load(EXAMPLE)
    first = model.graph.output[0]
    made = helper.make_node("Cast", [first.name], ["rounded"], to=onnx.TensorProto.INT32)
    model.graph.node.append(made)
    rounded = helper.make_tensor_value_info("rounded", onnx.TensorProto.INT32, None)
    if change == "another type":
        first.CopyFrom(rounded)
    else:
        model.graph.output.append(rounded)
    onnx.save(model, tmp_path / "other.onnx")
    done = bitcc_command("verify", example_bundle, "--against", tmp_path / "other.onnx")
    refused(done, 4, "the number, types, shapes", "hint: ")


def test_a_call_that_the_library_refuses_fails(broken: Path) -> None:
    """A scale [1, N], which is seen only when the model runs, and which the function body takes."""
    model = onnx.load(broken / "model.onnx", load_external_data=False)
    node = next(node for node in model.graph.node if node.domain == "bitcc")
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "front"))
    index = list(model.graph.node).index(node)
    model.graph.node.insert(index, helper.make_node("Unsqueeze", [node.input[2], "front"], ["scales"]))
    model.graph.node[index + 1].input[2] = "scales"
    (broken / "model.onnx").write_bytes(model.SerializeToString())
    reseal(broken)
    with pytest.raises(VerificationError, match=r"with the library: it does not run: .*w_scale"):
        verify.verify_bundle(broken, EXAMPLE, None)
