"""``--weight-format`` from the command line and from Python, to the manifest, the op and its results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import models
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from e2e.command import EXAMPLE, Run
from typer.testing import CliRunner

import bitcc
from bitcc import bundle, cli, pipeline, verify
from bitcc.facts import PACKED
from bitcc.passes import weight_format

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def t5_bundle(tmp_path_factory: pytest.TempPathFactory, bitcc_command: Run) -> Path:
    folder = tmp_path_factory.mktemp("t5") / "bundle"
    done = bitcc_command("compile", EXAMPLE, "-o", folder, "--weight-format", "t5")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_command_line_packs_what_was_asked_for(t5_bundle: Path, example_bundle: Path) -> None:
    small, large = bundle.read(t5_bundle), bundle.read(example_bundle)
    assert {layer.weight_format for layer in small.packed} == {"t5"}
    assert {layer.weight_format for layer in small.kept} == {""}
    assert {layer.weight_format for layer in large.packed} == {"t2"}  # auto
    sizes = [sum(layer.bytes_after for layer in built.packed) for built in (small, large)]
    assert sizes[0] < 0.9 * sizes[1]
    nodes = models.bit_linears(onnx.load(t5_bundle / "model.onnx"))
    assert {models.attributes(node)["weight_format"] for node in nodes} == {"t5"}


def test_it_computes_what_t2_computes_with_and_without_the_library(
    t5_bundle: Path, example_bundle: Path
) -> None:
    certificate = bundle.read(t5_bundle).manifest.verify
    assert certificate["status"] == "passed"
    assert certificate["library_equals_body"] is True
    small, large = bitcc.session(t5_bundle), bitcc.session(example_bundle)
    feeds = verify.random_inputs(large)
    for got, want in zip(small.run(None, feeds), large.run(None, feeds), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_the_body_computes_it_at_every_level_of_optimisation(t5_bundle: Path, level: str) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    plain = ort.InferenceSession(str(t5_bundle / "model.onnx"), options, providers=["CPUExecutionProvider"])
    fast = bitcc.session(t5_bundle)
    feeds = verify.random_inputs(plain)
    assert verify.distance(plain.run(None, feeds), fast.run(None, feeds)) < 1e-2


def test_inspect_says_the_format_of_a_bundle_and_of_a_model(bitcc_command: Run, t5_bundle: Path) -> None:
    for arguments in ((t5_bundle,), (EXAMPLE, "--weight-format", "t5")):
        done = bitcc_command("inspect", *arguments, "--json")
        layers = json.loads(done.stdout)["layers"]
        assert {layer["weight_format"] for layer in layers if layer["status"] == "packed"} == {"t5"}
    assert " t5 " in bitcc_command("inspect", t5_bundle).stdout


def test_a_damaged_byte_is_found(t5_bundle: Path, tmp_path: Path) -> None:
    built = bundle.read(t5_bundle)
    model = onnx.load(built.model)
    node = models.bit_linears(model)[0]
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    weight.raw_data = b"\xff" + weight.raw_data[1:]
    onnx.save(model, tmp_path / "model.onnx")
    (tmp_path / "bitcc.json").write_bytes((t5_bundle / "bitcc.json").read_bytes())
    damaged = bundle.Bundle(tmp_path, built.manifest)
    with pytest.raises(bitcc.BitccError, match="hold the byte 255, which no ternary weights have"):
        verify.check_weights(damaged)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("x86-64",), "t5"),
        (("x86-64", "x86-64-windows"), "t5"),
        (("arm64",), "t2"),  # would expand it
        (("x86-64", "arm64"), "t2"),
        (("cuda",), "t2"),
    ],
)
def test_auto_is_t5_for_large_models_where_every_target_has_kernels_for_it(
    targets: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_format, "BEYOND_CORES", 1 << 10)
    layers = pipeline.examine(EXAMPLE, pipeline.Request(targets))
    assert {layer.weight_format for layer in layers if layer.status == PACKED} == {expected}


@pytest.mark.parametrize(("target", "expected"), [("x86-64", "t5"), ("arm64", "t2")])
def test_inspect_says_what_a_target_would_get(
    target: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_format, "BEYOND_CORES", 1 << 10)
    done = CliRunner().invoke(cli.app, ["inspect", str(EXAMPLE), "--target", target, "--json"])
    assert done.exit_code == 0
    layers = json.loads(done.stdout)["layers"]
    assert {layer["weight_format"] for layer in layers if layer["status"] == PACKED} == {expected}


def test_compile_takes_t5_for_large_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_format, "BEYOND_CORES", 1 << 10)
    built = bitcc.compile(EXAMPLE, tmp_path / "b", targets="x86-64", verify=False)
    assert {layer.weight_format for layer in built.packed} == {"t5"}


def test_compile_says_what_t5_costs_on_other_cpus(bitcc_command: Run, tmp_path: Path) -> None:
    done = bitcc_command("compile", EXAMPLE, "-o", tmp_path / "b", "--weight-format", "t5", "--no-verify")
    assert "format t5: CPUs without AVX512-VBMI expand it" in done.stdout
    done = bitcc_command("compile", EXAMPLE, "-o", tmp_path / "b", "--force", "--no-verify")
    assert "format t5" not in done.stdout


def test_layers_with_float_activations_stay_in_t2(tmp_path: Path) -> None:
    onnx.save(models.build("weight_only/binary_sign"), tmp_path / "m.onnx")
    built = bitcc.compile(tmp_path / "m.onnx", tmp_path / "b", weight_format="t5", min_weights=0)
    assert [layer.weight_format for layer in built.packed] == ["t2"]


def test_other_formats_are_refused(bitcc_command: Run, tmp_path: Path) -> None:
    with pytest.raises(bitcc.BitccError, match="the weight format cannot be `t3`") as refused:
        bitcc.compile(EXAMPLE, tmp_path / "b", weight_format="t3")
    assert refused.value.hint == "it is one of `auto`, `t2`, `t5`"
    assert bitcc_command("compile", EXAMPLE, "-o", tmp_path / "b", "--weight-format", "t3").returncode == 2
    assert not (tmp_path / "b").exists()
