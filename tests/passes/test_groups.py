"""Weights with a scale for each group of columns, and float activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import pytest

from bitcc.facts import PACKED

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Array = NDArray[Any]


def grouped(spelling: str, size: int, opset: int = 21) -> tuple[onnx.ModelProto, Array]:
    """(a model with one scale for each group, those scales [n, g])."""
    weight = models.latent(shape=(models.N, 256))
    scales = np.random.default_rng(size).uniform(0.5, 2, (models.N, 256 // size)).astype(np.float32)
    values = {"fc.group_scale": scales[:, :, None], "fc.block_scale": scales}
    model = models.build(
        f"weight_only/{spelling}", opset=opset, weight=weight, values=values, replace={"$group": str(size)}
    )
    return model, scales


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("spelling", ["groups", "qcdq_groups"])
def test_scales_of_groups_are_packed(spelling: str, size: int) -> None:
    model, scales = grouped(spelling, size)
    made, facts = models.pack(model)
    assert (facts[0].status, facts[0].scope, facts[0].activation) == (PACKED, f"group:{size}", "float")
    assert facts[0].scale == pytest.approx(scales.mean(), rel=1e-6)
    attributes, (codes, scale, _) = models.read(made)
    assert attributes["group_size"] == size
    np.testing.assert_array_equal(codes, models.quantized(models.latent(shape=(models.N, 256)))[0])
    np.testing.assert_allclose(scale, scales.T, rtol=1e-6)
    models.assert_same(model)


@pytest.mark.parametrize("opset", [15, 18, 23])
def test_scales_of_groups_are_packed_in_every_opset(opset: int) -> None:
    models.assert_same(grouped("groups", 64, opset)[0])


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_scales_of_groups_are_packed_in_half_precision(half: str) -> None:
    codes, _ = models.quantized(models.latent(shape=(models.N, 256)))
    scales = np.random.default_rng(0).uniform(0.5, 2, (models.N, 4)).astype(models.HALVES[half])
    dense = codes.astype(models.HALVES[half]) * np.repeat(scales, 64, axis=1)
    values = {"half.codes": np.ascontiguousarray(dense.T), "half.weight_scale": scales[:1, 0] * 0 + 1}
    sizes = {"[$rows, 100]": "[$rows, 256]"}
    model, facts = models.pack(models.build("weight_only/half", half=half, values=values, replace=sizes))
    assert (facts[0].status, facts[0].scope, facts[0].numerics) == (PACKED, "group:64", "float32")
    np.testing.assert_array_equal(models.read(model)[1][1], scales.T.astype(np.float32))


def test_scales_of_groups_and_of_rows_are_multiplied() -> None:
    gain = np.linspace(-2, 3, models.N, dtype=np.float32)
    content = 'scaled_rows = Mul (product, "fc.row_scale") linear = Add (scaled_rows, "fc.bias")'
    weight = models.latent(shape=(models.N, 256))
    scales = np.random.default_rng(64).uniform(0.5, 2, (models.N, 4, 1)).astype(np.float32)
    model = models.build(
        "weight_only/groups",
        weight=weight,
        values={"fc.group_scale": scales, "fc.row_scale": gain},
        replace={"$group": "64", 'linear = Add (product, "fc.bias")': content},
    )
    _, (_, scale, _) = models.read(models.assert_same(model))
    np.testing.assert_allclose(scale, scales[:, :, 0].T * gain, rtol=1e-6)


def test_codes_of_groups_behind_an_int8_quantizer_keep_the_quantizer() -> None:
    weight = models.latent(shape=(models.N, 256))
    codes, _ = models.quantized(weight)
    scales = np.random.default_rng(0).uniform(0.5, 2, (models.N, 4, 1)).astype(np.float32)
    dense = (codes.reshape(models.N, 4, 64) * scales).reshape(models.N, 256)
    model = models.build(
        "dynamo_folded_bias",
        weight=weight,
        values={"fc.dense": np.ascontiguousarray(dense.T)},
        replace={"[$rows, 100]": "[$rows, 256]"},
    )
    facts = models.pack(model)[1]
    assert facts[0].reason == "activations stay float: it has group scales and int8 activations"
    assert "Round" in models.op_types(models.assert_same(model))
