"""Which dense weights with float activations are ternary, by their values alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import models
import numpy as np
import pytest

from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from bitcc.facts import LayerFacts

    Array = NDArray[Any]

CODES, SCALE = models.quantized(models.latent())


def with_dense(weight: Array, **options: Any) -> tuple[onnx.ModelProto, LayerFacts]:
    """(the packed model, the facts of the layer) of a dense weight [n, k] and float activations."""
    model, facts = models.pack(dense_model(weight), **options)
    return model, facts[0]


def dense_model(weight: Array) -> onnx.ModelProto:
    n, k = weight.shape
    values = {
        "fc.dense": np.ascontiguousarray(weight.T),
        "fc.bias": np.linspace(-1, 1, n, dtype=np.float32),
        "head.weight": np.random.default_rng(0).standard_normal((n, models.HEAD)).astype(np.float32),
    }
    return models.build("weight_only/dense", values=values, replace={"[$rows, 100]": f"[$rows, {k}]"})


def noise_of_half(dtype: Any) -> Array:
    """What a quantizer leaves that ran in half precision, stored in float32."""
    return models.noisy(models.latent(shape=(64, 256), seed=1).astype(dtype)).astype(np.float32)


VALUES = {
    "codes times scale": (CODES * np.float32(SCALE), "tensor", "exact"),
    "codes": (CODES.astype(np.float32), "tensor", "exact"),
    "noise of float32": (models.noisy(models.latent()), "tensor", "exact"),
    "noise of float32, heavy tails": (models.noisy(models.latent("heavy")), "tensor", "exact"),
    "rows": (CODES * np.geomspace(0.1, 9, models.N, dtype=np.float32)[:, None], "row", "exact"),
    "few rows of almost equal scales": (
        CODES[:8] * np.linspace(1, 1.02, 8, dtype=np.float32)[:, None],
        "row",
        "exact",
    ),
    "a row of zeros": (CODES * (np.arange(models.N) != 7)[:, None] * np.float32(0.1), "tensor", "exact"),
    "binary": (np.where(CODES == 0, 1, CODES) * np.float32(SCALE), "tensor", "exact"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_dense_weight_of_three_levels_is_packed(name: str) -> None:
    weight, scope, numerics = VALUES[name]
    facts = with_dense(weight, min_weights=0)[1]
    assert (facts.status, facts.scope, facts.numerics) == (PACKED, scope, numerics)
    assert facts.weight_error is None
    assert facts.scheme == ("binary" if name == "binary" else "ternary")
    models.assert_same(dense_model(weight), min_weights=0)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_noise_of_half_precision_is_dropped(dtype: Any, sign: int) -> None:
    weight = sign * noise_of_half(dtype)
    model, facts = with_dense(weight)
    assert (facts.status, facts.scope, facts.numerics) == (PACKED, "tensor", "snapped")
    assert facts.max_error is not None
    assert facts.max_error < 2e-6
    codes, scale, _ = models.read(model)[1]
    snapped = models.run(dense_model(codes * scale[0]), x := models.tokens(2, 3, k=256))[0]
    assert models.largest_difference(models.run(model, x)[0], snapped) < 1e-5
    assert np.abs(codes * scale[0] - weight).max() < 0.03 * scale[0, 0]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [0.99, 1.01])
def test_noise_on_one_side_of_the_level_is_noise_too(value: float, dtype: Any) -> None:
    """And how far away the rows are is told beside the error of the arithmetic."""
    weight = CODES * np.float32(SCALE)
    weight[:, ::7] *= np.float32(value)
    weight = weight.astype(dtype).astype(np.float32)
    model, facts = with_dense(weight)
    assert (facts.status, facts.numerics) == (PACKED, "snapped")
    codes, scale, _ = models.read(model)[1]
    away = np.linalg.norm(weight - codes * scale[0], axis=1) / np.linalg.norm(codes * scale[0], axis=1)
    assert facts.weight_error == pytest.approx(away.max(), rel=0.02)
    assert facts.weight_error > 1e-3
    assert facts.max_error is not None
    assert facts.max_error < 2e-6


def test_values_that_rounding_does_not_explain_are_not_packed() -> None:
    weight = CODES * np.float32(0.02)
    weight[np.random.default_rng(0).random(weight.shape) < 0.2] *= np.float32(1.06)
    _, facts = with_dense(weight)
    assert (facts.status, facts.numerics, facts.weight_error) == (KEPT, "", None)
    assert "which rounding does not explain" in facts.reason
    assert facts.fix


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_noise_of_weights_in_half_precision_is_dropped_behind_a_cast_too(half: str) -> None:
    weight = models.latent(shape=(64, 256), seed=1).astype(models.HALVES[half])
    model = models.build(
        "weight_only/half_stored",
        weight=weight.astype(np.float32),
        half=half,
        values={"half.dense": np.ascontiguousarray(models.noisy(weight).T)},
        replace={"[$rows, 100]": "[$rows, 256]"},
    )
    made, facts = models.pack(model)
    assert (facts[0].status, facts[0].numerics) == (PACKED, "snapped")
    np.testing.assert_array_equal(models.read(made)[1][0], models.quantized(weight)[0])
