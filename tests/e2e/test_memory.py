"""A compilation holds no weight unpacked, and packed ones are mapped: 1 GB opens without 1 GB of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import bitcc
from benchmarks import layer_models
from bitcc import function_body, ops
from bitcc.formats import FORMATS

_N = _K = 4096
_LAYERS = 256
_LAYER_BYTES = _N * _K // 4


def _write(folder: Path) -> Path:
    """A chain of 256 layers of 4096 x 4096 over one sparse data file; byte 0 is four weights of -1."""
    with (folder / "weights.bin").open("wb") as stream:
        stream.truncate(_LAYERS * _LAYER_BYTES)
    op = ops.BitLinear(K=_K, N=_N)
    nodes, initializers = (
        [],
        [
            onnx.numpy_helper.from_array(np.full(1, 1 / _K, np.float32), "scale"),
            onnx.numpy_helper.from_array(np.zeros(1, np.float32), "bias"),
            onnx.numpy_helper.from_array(np.ones(1, np.float32), "gain"),
        ],
    )
    for i in range(_LAYERS):
        weight = TensorProto(name=f"w{i}", data_type=TensorProto.UINT8, dims=(_N // 16, _K // 16, 64))
        weight.data_location = TensorProto.EXTERNAL
        place = {"location": "weights.bin", "offset": str(i * _LAYER_BYTES), "length": str(_LAYER_BYTES)}
        weight.external_data.extend(onnx.StringStringEntryProto(key=k, value=v) for k, v in place.items())
        initializers.append(weight)
        inputs = [f"x{i}", f"w{i}", "scale", "bias", "gain"]
        nodes.append(
            helper.make_node(
                ops.BIT_LINEAR, inputs, [f"x{i + 1}"], domain=ops.DOMAIN, name=f"layer{i}", **op.attributes()
            )
        )
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["M", _K])],
        [helper.make_tensor_value_info(f"x{_LAYERS}", TensorProto.FLOAT, ["M", _N])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(ops.DOMAIN, ops.OPSET)]
    model = helper.make_model(
        graph, opset_imports=opsets, functions=[function_body.function(18, FORMATS["t2"])], ir_version=8
    )
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


_OPEN = """
import sys
import numpy as np
import onnxruntime as ort

def anonymous():
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("RssAnon"))

options = ort.SessionOptions()
options.register_custom_ops_library(sys.argv[1])
before = anonymous()
session = ort.InferenceSession(sys.argv[2], options, providers=["CPUExecutionProvider"])
y = session.run(None, {"x0": np.ones((1, 4096), np.float32)})[0]
assert np.isfinite(y).all()
print(anonymous() - before)
"""


def test_a_gigabyte_of_weights_takes_no_anonymous_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _OPEN, bitcc.library_path(), _write(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100 * 1024, "kilobytes of anonymous memory"


# Compiles a small model, so that all is loaded, and then a large one: prints how many bytes that one adds.
_COMPILE = """
import pathlib, sys
import bitcc

def status(key):
    line = next(line for line in pathlib.Path("/proc/self/status").open() if line.startswith(key))
    return int(line.split()[1]) << 10

def compile(folder):
    options = {"min_weights": 0, "verify": False, "weight_format": sys.argv[3]}
    bitcc.compile(f"{folder}/model.onnx", f"{folder}/bundle", **options)

compile(sys.argv[1])
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
before = status("VmRSS")
compile(sys.argv[2])
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the memory of a process")
@pytest.mark.parametrize(
    ("form", "weight_format"),
    [
        *[("latent fp32", "t2"), ("latent fp16", "t2"), ("noisy fp16", "t2"), ("latent bf16", "t5")],
        *[("rows fp16", "t2"), ("groups fp16", "t2"), ("int8", "t2"), ("int8", "t5")],
    ],
)
def test_a_compilation_takes_no_more_memory_than_twice_a_weight_as_it_is_stored(
    tmp_path: Path, form: str, weight_format: str
) -> None:
    """Pages of the mapped file included."""
    side, layers = 4096, 2
    small, large = tmp_path / "small", tmp_path / "large"
    for folder in (small, large):
        folder.mkdir()
    layer_models.write(small, form, 1, 128)
    stored = layer_models.write(large, form, layers, side) // layers
    command = [sys.executable, "-c", _COMPILE, small, large, weight_format]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (large / "model.data").unlink()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2 * stored
