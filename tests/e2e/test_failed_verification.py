"""A compiled model that computes something else is not written, unless that is asked for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import pytest
from e2e.command import Run, refused
from onnx import TensorProto, helper, numpy_helper

import bitcc.bundle
from bitcc import verify
from bitcc.errors import BundleError, VerificationError
from bitcc.verify import runs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def amplified(tmp_path: Path) -> Path:
    """A layer whose output is rounded to so many digits that the last place of float32 is in them."""
    model = models.build("dynamo")
    (out,) = model.graph.output
    large = numpy_helper.from_array(np.array(1e9, np.float32), "large")
    model.graph.initializer.append(large)
    model.graph.node.append(helper.make_node("Mul", [out.name, "large"], ["product"]))
    model.graph.node.append(helper.make_node("Cast", ["product"], ["integers"], to=TensorProto.INT64))
    out.CopyFrom(helper.make_tensor_value_info("integers", TensorProto.INT64, None))
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_nothing_is_written(bitcc_command: Run, amplified: Path) -> None:
    output = amplified.parent / "b"
    with pytest.raises(VerificationError, match="integers, NaN or infinity of the outputs differ") as caught:
        bitcc.compile(amplified, output, min_weights=0)
    assert "verify=False" in caught.value.hint
    done = bitcc_command("compile", amplified, "-o", output, "--min-weights", "0", "--json")
    refused(done, 4, "of the outputs differ", "hint: nothing was written", "--no-verify")
    assert "of the outputs differ" in json.loads(done.stdout)["error"]
    assert [path.name for path in amplified.parent.iterdir()] == ["m.onnx"]


def test_nothing_is_replaced(amplified: Path, tmp_path: Path) -> None:
    onnx.save(models.build("dynamo"), tmp_path / "good.onnx")
    good = bitcc.compile(tmp_path / "good.onnx", tmp_path / "b", min_weights=0)
    with pytest.raises(VerificationError):
        bitcc.compile(amplified, good.path, min_weights=0, force=True)
    good.check_digests()
    assert bitcc.bundle.read(good.path).manifest == good.manifest


def test_it_is_written_where_that_is_asked_for(amplified: Path, tmp_path: Path) -> None:
    built = bitcc.compile(amplified, tmp_path / "b", min_weights=0, verify=False)
    assert built.manifest.verify["status"] == "not run"
    assert len(built.packed) == 1
    assert verify.verify_bundle(built.path, amplified, None).status == "failed"


def test_a_compiled_model_that_does_not_load_is_named_as_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is verified in a folder that will be gone."""
    onnx.save(models.build("dynamo"), tmp_path / "m.onnx")

    def refuse(built: bitcc.bundle.Bundle, *_: Any) -> Any:
        raise BundleError(f"onnxruntime cannot load it: Load model from {built.model} failed")

    monkeypatch.setattr(runs.runtime, "open_session", refuse)
    model = re.escape(str(tmp_path / "b" / "model.onnx"))
    with pytest.raises(VerificationError, match=f"^with the library: .* Load model from {model} failed"):
        bitcc.compile(tmp_path / "m.onnx", tmp_path / "b", min_weights=0)
    assert not (tmp_path / "b").exists()
