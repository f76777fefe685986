"""Scales and biases behind the matrix product, as far as they are the layer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]

SIDES: Mapping[str, Mapping[str, str]] = {
    "a scale of rank two": {"mean_1 = Squeeze (val_31)": "mean_1 = Identity (val_31)"},
    "a scale for each row, seen from both sides": {
        "mul_155 = Mul (reciprocal_3, mul_41)": "mul_155 = Mul (rows, mul_41)",
        "<int64[1] val_2": "<float[1, 60] rows = {"
        + ", ".join(str(i + 1) for i in range(60))
        + "}, int64[1] val_2",
    },
    "the scales apart": {
        "mul_155 = Mul (reciprocal_3, mul_41)": "unscaled = Div (linear, mul_41)",
        "div_1 = Div (linear, mul_155)": "div_1 = Div (unscaled, reciprocal_3)",
    },
    "the scales as a factor": {
        "div_1 = Div (linear, mul_155)": "inverse = Reciprocal (mul_155) div_1 = Mul (inverse, linear)"
    },
    "a gain behind": {
        "[node_head] val_38 = MatMul (div_1,": """gained = Mul (div_1, "fc.row_scale")
          [node_head] val_38 = MatMul (gained,"""
    },
}


@pytest.mark.parametrize("side", SIDES)
def test_scales_behind_the_product_are_read(side: str) -> None:
    packed = models.assert_same(models.build("codes_after", replace=SIDES[side]))
    assert models.op_types(packed) == ["BitLinear", "MatMul", "Add"]


BIASES = {
    "one for all": (np.float32(2.5), []),
    "one for each output": (np.ones(models.N, np.float32), []),
    "of the rank of the output": (np.ones((1, 1, models.N), np.float32), []),
    "one for each token": (np.arange(6, dtype=np.float32).reshape(2, 3, 1), ["Add"]),
    "one for each token and output": (np.ones((2, 3, models.N), np.float32), ["Add"]),
}


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_that_is_the_same_for_all_tokens_is_the_layers(name: str) -> None:
    bias, left = BIASES[name]
    packed = models.assert_same(models.build("dynamo_folded_bias", rows="2, 3", values={"fc.bias": bias}))
    assert models.op_types(packed) == ["BitLinear", *left, "MatMul", "Add"]


@pytest.mark.parametrize("scale", [[-0.5], np.linspace(-1, 2, models.N)])
def test_a_scale_can_be_negative(scale: Any) -> None:
    values = {"fc.weight_scale": np.array(scale, np.float32)}
    packed = models.assert_same(models.build("hf_offline_rms_bias", values=values))
    assert models.op_types(packed)[-3:] == ["BitLinear", "MatMul", "Add"]


@pytest.mark.parametrize("scale", [[0.0], np.arange(models.N)])
def test_a_scale_of_zero_is_not_divided_by(scale: Any) -> None:
    values = {"fc.weight_scale": np.array(scale, np.float32)}
    packed = models.assert_same(models.build("hf_offline_rms_bias", values=values))
    assert models.op_types(packed)[-4:] == ["BitLinear", "Mul", "MatMul", "Add"]


def test_a_bias_that_is_not_finite_is_not_packed() -> None:
    values = {"fc.bias": np.full(models.N, np.nan, np.float32)}
    _, facts = models.pack(models.build("dynamo_folded_bias", values=values))
    assert facts[0].reason == "its scale or bias is not finite in float32"
