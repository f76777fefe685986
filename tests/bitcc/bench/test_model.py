"""A compiled model against its original."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import models
import numpy as np
import onnx
import pytest

import bitcc
from bitcc.bench import model, profile
from bitcc.bench.rounds import Pace
from bitcc.errors import BundleError, ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.command import Run

    from bitcc.bundle import Bundle


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "model.onnx"
    onnx.save(models.build("dynamo"), path)
    return path


@pytest.fixture(scope="module")
def bundle(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bitcc.compile(original, tmp_path_factory.mktemp("out") / "bundle", min_weights=0)


@pytest.fixture(scope="module")
def bench(bundle: Bundle, original: Path) -> model.ModelBench:
    return model.run(bundle, original, dims={"tokens": 7}, threads=1, pace=Pace(1, 1e-4, 0.0))


def test_both_models_are_timed_and_compared(bench: model.ModelBench, original: Path, bundle: Bundle) -> None:
    assert bench.original is not None
    assert bench.ratio == pytest.approx(bench.original.seconds.median / bench.compiled.seconds.median)
    assert bench.difference is not None
    assert bench.difference < 1e-2
    assert bench.original.disk_bytes == original.stat().st_size
    files = [bundle.model, bundle.path / "model.onnx.data"]
    assert bench.compiled.disk_bytes == sum(file.stat().st_size for file in files if file.exists())
    assert bench.library_bytes > 0


def test_a_dimension_has_the_size_that_was_given(bench: model.ModelBench) -> None:
    assert bench.inputs == {"x": (4, 7, models.K)}


def test_the_profile_finds_the_packed_layers(bench: model.ModelBench, bundle: Bundle) -> None:
    assert len(bench.layers) == len(bundle.packed) == 1
    assert bench.layers[0].seconds > 0
    assert "BitLinear" in [time.op for time in bench.compiled.ops]
    assert bench.original is not None
    assert "BitLinear" not in [time.op for time in bench.original.ops]


def test_json_loses_nothing(bench: model.ModelBench) -> None:
    plain = bench.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_a_bundle_is_timed_alone_on_given_inputs(bundle: Bundle, one_round: Pace) -> None:
    alone = model.run(bundle.path, feeds={"x": models.tokens(2, 5)}, pace=one_round)
    assert (alone.original, alone.ratio, alone.difference) == (None, None, None)
    assert alone.inputs == {"x": (2, 5, models.K)}


def test_an_unknown_dimension_is_named_with_those_that_exist(bundle: Bundle) -> None:
    with pytest.raises(ModelError, match="no input has a dynamic dimension `length`") as caught:
        model.run(bundle, dims={"length": 3})
    assert caught.value.hint == "there is `batch`, `tokens`"


def test_inputs_that_do_not_fit_are_refused(bundle: Bundle) -> None:
    with pytest.raises(ModelError, match="it does not run on these inputs"):
        model.run(bundle, feeds={"x": np.zeros((2, 5, models.K + 1), np.float32)})


def test_inputs_of_a_file_are_taken(bitcc_command: Run, bundle: Bundle, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=models.tokens(2, 5))
    np.savez(tmp_path / "z.npz", z=models.tokens(2, 5))
    done = bitcc_command("bench", bundle.path, "--inputs", tmp_path / "x.npz", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["inputs"] == {"x": [2, 5, models.K]}
    done = bitcc_command("bench", bundle.path, "--inputs", tmp_path / "z.npz")
    assert done.returncode == 1
    assert (
        "hint: give inputs with --inputs FILE.npz, or sizes of dynamic dimensions with --dim" in done.stderr
    )


def test_layers_with_float_activations_are_counted_and_sequences_compared(
    tmp_path: Path, one_round: Pace
) -> None:
    codes = np.random.default_rng(0).integers(-1, 2, (64, 64)).astype(np.float32)
    content = """<ir_version: 8, opset_import: ["": 17]>
        two (float[n, 64] x) => (seq(float[n, 64]) y) {
            h = MatMul(x, w)
            y = SequenceConstruct(h, x)
        }"""
    onnx.save(models.parse(content, {"w": codes}), tmp_path / "m.onnx")
    built = bitcc.compile(tmp_path / "m.onnx", tmp_path / "b", min_weights=0)
    found = model.run(built, tmp_path / "m.onnx", pace=one_round)
    assert [layer.op for layer in found.layers] == ["TernaryLinear"]
    assert found.difference is not None
    assert found.difference < 1e-5


def test_an_original_that_does_not_load_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="onnxruntime cannot load it"):
        model.run(bundle, tmp_path / "bad.onnx")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        model.run(tmp_path)


def test_a_profile_is_read_by_node() -> None:
    def event(name: str, op: str, microseconds: int) -> dict[str, object]:
        return {"cat": "Node", "name": name, "dur": microseconds, "args": {"op_name": op}}

    events = [
        {"cat": "Session", "name": "model_run", "dur": 9, "args": {}},
        event("a_fence_before", "Add", 9),
    ]
    events += [event("a_kernel_time", "Add", t) for t in (90, 1, 2, 3)]  # the first warms up
    events += [event("b_kernel_time", "Add", 5), event("c_kernel_time", "Mul", 8)]
    nodes = profile.parse(events)
    assert [(n.name, n.op, round(n.seconds * 1e6)) for n in nodes] == [
        ("a", "Add", 2),
        ("b", "Add", 5),
        ("c", "Mul", 8),
    ]
    assert [(t.op, t.nodes, round(t.seconds * 1e6)) for t in profile.by_op(nodes)] == [
        ("Mul", 1, 8),
        ("Add", 2, 7),
    ]
