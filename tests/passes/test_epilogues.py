"""Scales and biases behind the matrix product, as far as they are the layer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import pytest

from bitcc.facts import KEPT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
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


DEQUANTIZED = {
    "by the maximum": "step = Div (clamp, round_1_max) div = Mul (clamp_1, step)",
    "by the maximum, then by 127": "up = Mul (clamp, clamp_1) div = Div (up, round_1_max)",
    "with a factor of its own": "up = Div (clamp_1, mul_38) div = Mul (up, round_1_max)",
    "by the inverse of the maximum": "div = Div (clamp_1, reciprocal)",
}


@pytest.mark.parametrize("name", DEQUANTIZED)
def test_codes_may_be_dequantised_in_another_way_than_they_were_quantised(name: str) -> None:
    replace = {"div = Div (clamp_1, mul_38)": DEQUANTIZED[name]}
    model = models.build("dynamo", rows="2, 3", replace=replace)
    (layer, _) = models.pack(model)[1]
    assert (layer.activation, layer.reason) == ("int8_token", "")
    models.assert_same(model)


REPEATED = np.broadcast_to(np.arange(models.N, dtype=np.float32), (2, 3, models.N))
EACH = np.arange(6 * models.N, dtype=np.float32).reshape(REPEATED.shape)
BIASES = {
    "one for all": (np.float32(2.5), []),
    "one for each output": (np.ones(models.N, np.float32), []),
    "of the rank of the output": (np.ones((1, 1, models.N), np.float32), []),
    "one for each token": (np.arange(6, dtype=np.float32).reshape(2, 3, 1), ["Add"]),
    "one for each token and output": (EACH, ["Add"]),
    "one for each output, repeated for the tokens": (REPEATED, []),
    "one for each output, repeated for some tokens": (REPEATED[:1], []),
}


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_that_is_the_same_for_all_tokens_is_the_layers(name: str) -> None:
    bias, left = BIASES[name]
    packed = models.assert_same(models.build("dynamo_folded_bias", rows="2, 3", values={"fc.bias": bias}))
    assert models.op_types(packed) == ["BitLinear", *left, "MatMul", "Add"]


@pytest.mark.parametrize("rows", ["batch, 3", "1, 3"])
def test_a_row_that_is_repeated_for_more_tokens_than_there_may_be_is_not_the_layers(rows: str) -> None:
    original = models.build("dynamo_folded_bias", rows=rows, values={"fc.bias": REPEATED})
    for axis, size in enumerate((2, 3)):
        original.graph.output[0].type.tensor_type.shape.dim[axis].dim_value = size
    packed = models.pack(original)[0]
    assert models.op_types(packed) == ["BitLinear", "Add", "MatMul", "Add"]
    x = models.tokens(1, 3)
    assert models.largest_difference(models.run(packed, x)[0], models.run(original, x)[0]) < 1e-5


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


GEMM = """
  <ir_version: 10, opset_import: ["" : 18]>
  gemm (float[5, 100] x) => (float[5, 60] y)
  {{ y = Gemm <alpha = {alpha}, beta = {beta}, transB = 1> (x, w, c) }}
"""


def gemm(bias: Any, *, alpha: float = 1.0, beta: float = 1.0) -> onnx.ModelProto:
    codes, scale = models.quantized(models.latent())
    known = {"w": codes * np.float32(scale), "c": np.asarray(bias, np.float32)}
    return models.parse(GEMM.format(alpha=alpha, beta=beta), known)


@pytest.mark.parametrize("alpha", [1.0, -3.0])
def test_a_bias_of_a_gemm_may_be_repeated_for_the_tokens(alpha: float) -> None:
    """An optimiser folds ``bias.unsqueeze(0).expand_as(output)`` to that."""
    bias = np.broadcast_to(np.random.default_rng(0).standard_normal(models.N), (5, models.N))
    assert models.op_types(models.assert_same(gemm(bias, alpha=alpha))) == ["TernaryLinear"]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (models.N,), (1, models.N)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, -2.0), (2.0, 0.0)])
def test_the_factors_and_the_bias_of_a_gemm_are_the_layers(
    shape: tuple[int, ...], alpha: float, beta: float
) -> None:
    bias = np.random.default_rng(0).standard_normal(shape)
    packed = models.assert_same(gemm(bias, alpha=alpha, beta=beta))
    assert models.op_types(packed) == ["TernaryLinear"]


@pytest.mark.parametrize("shape", [(5, 1), (5, models.N)])
def test_a_bias_of_each_token_is_not_the_layers(shape: tuple[int, ...]) -> None:
    _, (layer,) = models.pack(gemm(np.arange(np.prod(shape)).reshape(shape)))
    assert (layer.status, layer.reason) == (KEPT, "the bias of the Gemm is not one constant row")


FOLLOWED = {
    "a norm of batches": ("y = BatchNormalization (p, gain, bias, mean, gain)", ["TernaryLinear"]),
    "a bias, a norm and a bias": (
        "q = Add (p, bias) r = BatchNormalization (q, gain, bias, mean, gain) y = Sub (r, mean)",
        ["TernaryLinear"],
    ),
    "a norm that forgets an output": (
        "y = BatchNormalization (p, zero, bias, mean, gain)",
        ["TernaryLinear", "BatchNormalization"],
    ),
    "a difference from a bias": ("y = Sub (bias, p)", ["TernaryLinear", "Sub"]),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_follows_a_layer_is_its_own_where_it_is_a_scale_and_a_bias(name: str) -> None:
    body, left = FOLLOWED[name]
    rng = np.random.default_rng(0)
    codes, scale = models.quantized(models.latent())
    known = {
        "w": np.ascontiguousarray((codes * np.float32(scale)).T),
        "gain": rng.uniform(0.5, 2, models.N).astype(np.float32),
        "zero": np.arange(models.N, dtype=np.float32),
        **{name: rng.standard_normal(models.N).astype(np.float32) for name in ("bias", "mean")},
    }
    content = GEMM[: GEMM.index("{{")] + "{ p = MatMul (x, w) " + body + " }"
    assert models.op_types(models.assert_same(models.parse(content, known))) == left
