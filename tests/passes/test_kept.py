"""What is not a BitLinear stays as it is, to the byte, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx_ir as ir
import pytest

from bitcc import passes
from bitcc.facts import KEPT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    Array = NDArray[Any]

RNG = np.random.default_rng(3)
SHAPE = (models.N, models.K)
CODES, SCALE = models.quantized(models.latent())
TERNARY = CODES * np.float32(SCALE)


def kept(model: onnx.ModelProto, **options: Any) -> list[str]:
    """The reasons why nothing was packed; the model must be what it was."""
    graph = ir.from_proto(model)
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    result = passes.pipeline(passes.PackBitLinearPass(**options))(graph)
    assert not result.modified
    assert ir.to_proto(graph).SerializeToString(deterministic=True) == before
    assert {f.status for f in graph.meta[passes.FACTS]} <= {KEPT}
    return [f.reason for f in graph.meta[passes.FACTS]]


def with_weight(weight: Array) -> onnx.ModelProto:
    """A layer with that dense weight [n, k] behind a proper activation quantizer."""
    n, k = weight.shape
    values = {
        "fc.dense": np.ascontiguousarray(weight.T),
        "fc.bias": np.ones(n, np.float32),
        "head.weight": RNG.standard_normal((n, models.HEAD)).astype(np.float32),
    }
    sizes = {"[$rows, 100]": f"[$rows, {k}]"}
    return models.build("dynamo_folded_bias", values=values, replace=sizes)


def changed(weight: Array, index: Any, value: float) -> Array:
    copy = weight.copy()
    copy[index] = value
    return copy


def levels(*values: float, scale: float = SCALE) -> Array:
    return (RNG.choice(values, SHAPE) * scale).astype(np.float32)


def hadamard(size: int) -> Array:
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


GAUSSIAN = RNG.standard_normal(SHAPE).astype(np.float32)
WEIGHTS: dict[str, tuple[Array, str]] = {
    "dense": (GAUSSIAN, "the weights are dense: they have more levels"),
    "int4": (levels(*range(-7, 8)), "the weights are dense"),
    "2 bits, 4 levels": (levels(-1.5, -0.5, 0.5, 1.5), "the weights are dense"),
    "0, s and 2s": (levels(0, 1, 2), "the weights are dense"),
    "two ternary planes": (levels(-1.25, -1, -0.75, -0.25, 0, 0.25, 0.75, 1, 1.25), "the weights are dense"),
    "asymmetric": (levels(-1, 0, 1.3), "the weights have more levels than -s, 0 and +s"),
    "shifted": (levels(-0.9, 0.1, 1.1), "the weights are dense"),
    "half sparse": (
        np.where(RNG.random(SHAPE) < 0.5, 0, GAUSSIAN).astype(np.float32),
        "the weights are dense",
    ),
    "jitter": (
        (TERNARY * (1 + 0.002 * RNG.standard_normal(SHAPE))).astype(np.float32),
        "the weights have more levels than -s, 0 and +s: values are",
    ),
    "gain in the columns": (
        TERNARY * RNG.uniform(0.6, 1, models.K).astype(np.float32),
        "the weights have more levels than -s, 0 and +s",
    ),
    "permutation": (
        np.eye(models.K, dtype=np.float32)[RNG.permutation(models.K)],
        "99% of the weights are zero",
    ),
    "one hot": (np.eye(*SHAPE, dtype=np.float32), "a selection or mask rather than a BitLinear"),
    "hadamard": (hadamard(128), "the rows are orthogonal to each other"),
    "one sign": (np.abs(TERNARY), "all nonzero weights have one sign"),
    "all zero": (np.zeros(SHAPE, np.float32), "the weights are all zero"),
    "one outlier": (changed(TERNARY, (3, 5), 50 * SCALE), "the weights are dense"),
    "NaN": (changed(TERNARY, (3, 5), np.nan), "the weights hold NaN or infinity"),
    "infinity": (changed(TERNARY, (3, 5), -np.inf), "the weights hold NaN or infinity"),
    "few outputs": (TERNARY[:15], "[N, K] = [15, 100] is smaller than the smallest BitLinear, [16, 32]"),
    "few inputs": (TERNARY[:, :31], "[N, K] = [60, 31] is smaller than the smallest BitLinear"),
    "many inputs": (np.tile(TERNARY[:16], 656), "K = 65600 is over the limit of 65536"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_that_is_not_ternary_is_kept(name: str) -> None:
    weight, reason = WEIGHTS[name]
    assert reason in kept(with_weight(weight))[0]


def test_the_weight_that_the_negatives_are_made_of_is_packed() -> None:
    _, facts = models.pack(with_weight(TERNARY))
    assert facts[0].reason == ""


def test_a_layer_with_few_weights_is_kept() -> None:
    reason = "it has 6000 weights; layers with fewer than 6001 stay float (--min-weights)"
    assert kept(models.build("dynamo"), min_weights=6001)[0] == reason


def test_a_layer_with_enough_weights_is_packed() -> None:
    _, facts = models.pack(models.build("dynamo"), min_weights=6000)
    assert facts[0].reason == ""


SPELLED: dict[str, tuple[str, Mapping[str, str], str]] = {
    "float activations": ("dynamo", {"MatMul (add_68,": "MatMul (x,"}, "its activations are float"),
    "no Round": ("dynamo", {"round_1 = Round": "round_1 = Identity"}, "its activations are float"),
    "codes without Round": (
        "codes_after",
        {"round_1 = Round": "round_1 = Floor"},
        "its activations are float",
    ),
    "per-tensor absmax": ("dynamo", {"(abs_1, val_2)": "(abs_1)"}, "only per-token scales are packed"),
    "absmax over tokens": (
        "dynamo",
        {"val_2 = {-1}": "val_2 = {-2}"},
        "is taken over axes [-2], not over the last",
    ),
    "absmax over two axes": (
        "dynamo",
        {"int64[1] val_2 = {-1}": "int64[2] val_2 = {1, -1}"},
        "over axes [1, -1]",
    ),
    "absmax with an upper bound": (
        "dynamo",
        {"Clip (getitem, val_4)": "Clip (getitem, val_4, round_1_max)"},
        "the absolute maximum of the activations has an upper bound",
    ),
    "maximum without Abs": (
        "dynamo",
        {"abs_1 = Abs (x)": "abs_1 = Identity (x)"},
        "the activation scale is not computed from the input's absolute maximum",
    ),
    "absmax of something else": (
        "dynamo",
        {"abs_1 = Abs (x)": "twice = Add (x, x) abs_1 = Abs (twice)"},
        "the activation scale is not computed from the input's absolute maximum",
    ),
    "scale of unknown form": (
        "dynamo",
        {"reciprocal = Reciprocal (clamp)": "reciprocal = Sqrt (clamp)"},
        "the activation scale has no known form",
    ),
    "negative epsilon": (
        "divide_row_scale",
        {"eps = {1e-6}": "eps = {-1e-6}"},
        "the epsilon of the activation scale is negative (-1e-06)",
    ),
    "nine bits": (
        "dynamo",
        {"round_1_min = {-128}": "round_1_min = {-256}", "round_1_max = {127}": "round_1_max = {255}"},
        "the activation codes, clamp(x * 255 / max, -256, 255), are not int8",
    ),
    "bounds between integers": ("dynamo", {"round_1_min = {-128}": "round_1_min = {-127.5}"}, "are not int8"),
    "bounds that are infinite": ("dynamo", {"round_1_min = {-128}": "round_1_min = {-inf}"}, "are not int8"),
    "one scale in, another out": (
        "dynamo",
        {"div = Div (clamp_1, mul_38)": "div = Div (clamp_1, reciprocal)"},
        "dequantised by another scale than they were quantised by",
    ),
    "one scale in, multiplied out": (
        "hf_online",
        {"div_1 = Div (clamp_3, mul_40)": "div_1 = Mul (clamp_3, mul_40)"},
        "dequantised by another scale than they were quantised by",
    ),
    "scale never divided out": (
        "codes_after",
        {"div_1 = Div (linear, mul_155)": "div_1 = Identity (linear)"},
        "the product of codes is not divided by the activation scale",
    ),
    "scale divided out twice": (
        "codes_after",
        {"mul_155 = Mul (reciprocal_3, mul_41)": "mul_155 = Mul (mul_41, mul_41)"},
        "the product of codes is not divided by the activation scale",
    ),
    "scale multiplied again": (
        "codes_after",
        {"div_1 = Div (linear, mul_155)": "div_1 = Mul (linear, mul_155)"},
        "the product of codes is not divided by the activation scale",
    ),
    "product seen outside": (
        "codes_after",
        {"[$rows, 20] y)": "[$rows, 20] y, float[$rows, 60] linear)"},
        "the product of codes is not divided by the activation scale",
    ),
    "bias computed at run time": (
        "gemm_bias",
        {
            '(add_54, add_123, "fc.bias")': "(add_54, add_123, row)",
            "abs_1 = Abs (x)": 'row = MatMul (x, "fc.codes") abs_1 = Abs (x)',
        },
        "the bias of the Gemm is not",
    ),
}


@pytest.mark.parametrize("name", SPELLED)
def test_a_spelling_that_computes_something_else_is_kept(name: str) -> None:
    spelling, replace, reason = SPELLED[name]
    rows = models.SPELLINGS[spelling].rows[0]
    model = models.build(spelling, rows=rows, replace=replace)
    assert any(reason in found for found in kept(model))


def test_a_layer_whose_scale_drops_the_last_axis_is_kept() -> None:
    model = models.build("dynamo", rows="100", replace={"keepdims = 1> (abs_1": "keepdims = 0> (abs_1"})
    assert "the absolute maximum drops the last axis" in kept(model)[0]


def test_a_transposed_input_is_kept() -> None:
    model = models.build("gemm", rows="100", replace={"transA = 0> (add_54": "transA = 1> (add_54"})
    assert "the data input is transposed" in kept(model)[0]


def test_weights_rounded_by_a_random_number_are_no_candidate() -> None:
    stochastic = "noise = RandomUniformLike (mul_345) moved = Add (mul_345, noise) round_4 = Floor (moved)"
    model = models.build("dynamo", replace={"round_4 = Round (mul_345)": stochastic})
    assert [reason for reason in kept(model) if "dense" not in reason] == []
    assert len(kept(model)) == 1


def test_a_weight_that_the_caller_can_override_is_no_candidate() -> None:
    model = models.build("dynamo_folded_bias", replace={"100] x)": '100] x, float[100, 60] "fc.dense")'})
    weight = models.arrays()["fc.dense"]
    model.graph.initializer.append(models.initializer("fc.dense", weight))
    assert len(kept(model)) == 1


def test_a_quantizer_whose_bound_the_caller_can_override_is_kept() -> None:
    model = models.build(
        "dynamo",
        replace={
            "100] x)": "100] x, float bound)",
            "clamp_1 = Clip (round_1, round_1_min": "clamp_1 = Clip (round_1, bound",
        },
    )
    model.graph.initializer.append(models.initializer("bound", np.float32(-128)))
    assert "its activations are float" in kept(model)[0]


def test_an_older_opset_is_refused() -> None:
    model = ir.from_proto(models.build("torchscript", opset=15))
    model.opset_imports[""] = 14
    with pytest.raises(ir.passes.PassError) as caught:
        passes.PIPELINE(model)
    assert "opset is 14; packing its BitLinears needs 15" in str(caught.value.__cause__)


def test_a_packed_model_is_not_packed_again() -> None:
    packed, _ = models.pack(models.build("dynamo"))
    again, facts = models.pack(packed)
    assert [n.op_type for n in again.graph.node] == [n.op_type for n in packed.graph.node]
    assert [f.status for f in facts] == [KEPT]
