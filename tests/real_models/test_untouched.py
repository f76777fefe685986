"""Models that people use and that have no BitLinear: compiling must change nothing in them.

They ship inside the packages of the dependency group `real-models`, which `make test-real-models` fetches.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest

import bitcc
from bitcc import bundle

if TYPE_CHECKING:
    from e2e.command import Run
    from numpy.typing import NDArray

# shapes for the inputs that leave more than their first axis free
PACKAGES: dict[str, dict[str, tuple[int, ...]]] = {
    "basic-pitch": {},  # notes of music
    "khmersm": {"x": (1, 20), "mask": (1, 20)},  # words of Khmer text; its weights are external data
    "magika": {},  # types of files
    "nudenet": {"images": (1, 3, 320, 320)},  # object detection
    "rapidocr-onnxruntime": {"x": (1, 3, 32, 192)},  # text in images: finds it, turns it, reads it
    "silero-vad": {"input": (1, 576), "state": (2, 1, 128)},  # voice activity; subgraphs, half precision
    "speechmos": {"input": (1, 3, 60, 160), "degraded_audio": (1, 1, 60, 257)},  # quality of speech
}
_SAMPLING_RATE = 16000  # Hz
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_model_without_bit_linear_stays_byte_for_byte(
    package: str, bitcc_command: Run, tmp_path: Path
) -> None:
    for number, model in enumerate(_models(package)):
        output = tmp_path / str(number)
        # No layer is left alone only because it is small.
        done = bitcc_command("compile", model, "-o", output, "--min-weights", "0")
        assert done.returncode == 3, (model, done.stdout, done.stderr)
        written = bundle.read(output)
        assert not written.packed
        assert written.model.read_bytes() == model.read_bytes(), model
        for data in set(written.manifest.files) - {bundle.MODEL}:
            assert (output / data).read_bytes() == (model.parent / data).read_bytes(), model
        _assert_same_outputs(model, output, PACKAGES[package])


def _models(package: str) -> list[Path]:
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed: run `make test-real-models`")
    models = [Path(str(file.locate())) for file in files if file.suffix == ".onnx"]
    assert models, f"{package} ships no model"
    return models


def _assert_same_outputs(model: Path, output: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    original = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {value.name: _random(rng, value, shapes.get(value.name)) for value in original.get_inputs()}
    want = original.run(None, feeds)
    for got, expected in zip(bitcc.session(output, options).run(None, feeds), want, strict=True):
        np.testing.assert_array_equal(got, expected, str(model))


def _random(rng: np.random.Generator, value: ort.NodeArg, shape: tuple[int, ...] | None) -> NDArray[Any]:
    if value.name == "sr":
        return np.asarray(_SAMPLING_RATE, np.int64)
    shape = shape or (*(d if isinstance(d, int) else 1 for d in value.shape[:1]), *value.shape[1:])
    dtype = np.dtype(_TYPES[value.type])
    array = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
    return np.asarray(array, dtype)
