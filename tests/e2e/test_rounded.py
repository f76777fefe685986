"""The original in half precision, with the roundings that onnxruntime leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import onnx
import onnxruntime as ort
import pytest

import bitcc
from bitcc.verify import runs
from bitcc.verify.rounded import rounded_session

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

HALF = np.float16
CHAIN = "r = Reciprocal (x) s = Mul (r, qmax) v = Mul (x, s) u = Mul (v, s) y = Mul (u, third)"


def chain(body: str = CHAIN) -> onnx.ModelProto:
    """Some products, each of which is rounded."""
    content = f"""<ir_version: 10, opset_import: ["" : 18]>
      chain (float16[n] x) => (float16[n] y) {{ {body} }}"""
    return models.parse(content, {"qmax": HALF(127), "third": HALF(1 / 3), "yes": np.bool_(1)})


def session(path: Path) -> ort.InferenceSession:
    """As a model is verified."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return rounded_session(path, options)


def inputs() -> NDArray[np.float16]:
    return np.random.default_rng(0).uniform(1, 90, 500).astype(HALF)


def wanted(x: NDArray[np.float16]) -> NDArray[np.float16]:
    """As the file says; numpy rounds every result."""
    scale = (HALF(1) / x) * HALF(127)
    return np.asarray(x * scale * scale * HALF(1 / 3))


BODIES = {
    "a graph": CHAIN,
    "the body of an If": f"""y = If (yes) <
      then_branch = t () => (float16[n] y1) {{ {CHAIN.replace("y =", "y1 =")} }},
      else_branch = e () => (float16[n] y2) {{ y2 = Identity (x) }}>""",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_every_result_is_rounded(body: str, tmp_path: Path) -> None:
    onnx.save(chain(body), tmp_path / "m.onnx")
    x = inputs()
    np.testing.assert_array_equal(session(tmp_path / "m.onnx").run(None, {"x": x})[0], wanted(x))


def test_weights_in_another_file_are_found(tmp_path: Path) -> None:
    model = models.build("half_bias", half="float16")
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    x = models.tokens(2, 3).astype(HALF)
    (y,) = session(tmp_path / "m.onnx").run(None, {"x": x})
    assert np.isfinite(y).all()


def on_a_boundary() -> NDArray[np.float32]:
    """Latent weights of which a fifth is half the scale but for its rounding: their codes are 0 or 1."""
    weight = models.latent(seed=4)
    for _ in range(3):
        half = HALF(np.abs(weight).mean() / 2)
        weight[:, ::5] = np.sign(weight[:, ::5]) * np.float32(half)
    weight[:, ::5] = np.sign(weight[:, ::5]) * np.float32(np.nextafter(half, HALF(0)))
    return weight


@pytest.fixture
def boundary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(models.weights, "_MARGIN", -1)
    onnx.save(models.build("half_bias", half="float16", weight=on_a_boundary()), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_codes_that_roundings_move_are_no_error(boundary: Path, tmp_path: Path) -> None:
    verdict = bitcc.compile(boundary, tmp_path / "b").manifest.verify
    assert verdict["status"] == "passed"
    assert verdict["max_error_library"] < 1e-2
    plain = runs.plain_session(boundary)
    x = models.tokens(8).astype(HALF)
    found = session(boundary).run(None, {"x": x[None]})[0]
    if np.abs(found - plain.run(None, {"x": x[None]})[0]).max() > 0.05 * np.abs(found).max():
        assert verdict["reason"].startswith("onnxruntime leaves roundings of the original out, by ")


def test_errors_that_roundings_do_not_explain_are_found(
    boundary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "by_library", lambda _built, _feeds, by_body: [y * 1.1 for y in by_body])
    with pytest.raises(bitcc.BitccError, match="is over 5e-02"):
        bitcc.compile(boundary, tmp_path / "b")


def test_models_in_float32_are_compared_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(models.build("dynamo"), tmp_path / "m.onnx")
    monkeypatch.setattr(runs, "by_library", lambda _built, _feeds, by_body: [y * 1.1 for y in by_body])
    monkeypatch.setattr(runs, "by_rounded", lambda *_: pytest.fail("nothing is rounded"))
    with pytest.raises(bitcc.BitccError, match="is over 1e-02"):
        bitcc.compile(tmp_path / "m.onnx", tmp_path / "b")
