"""What is no ternary layer stays as it is, to the byte, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import models
import numpy as np
import onnx_ir as ir
import pytest

from bitcc import passes
from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
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


def with_weight(weight: Array, spelling: str = "dynamo_folded_bias") -> onnx.ModelProto:
    """A layer with that dense weight [n, k], by default behind a proper activation quantizer."""
    n, k = weight.shape
    values = {
        "fc.dense": np.ascontiguousarray(weight.T),
        "fc.bias": np.ones(n, np.float32),
        "head.weight": RNG.standard_normal((n, models.HEAD)).astype(np.float32),
    }
    sizes = {"[$rows, 100]": f"[$rows, {k}]"}
    return models.build(spelling, values=values, replace=sizes)


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


def bf16(matrix: Array) -> Array:
    return matrix.astype(ml_dtypes.bfloat16).astype(np.float32)


GAUSSIAN = RNG.standard_normal(SHAPE).astype(np.float32)
MORE_LEVELS = "the weights are dense, with more than three levels"
VALUES: dict[str, tuple[Array, str]] = {
    "dense": (GAUSSIAN, MORE_LEVELS),
    "dense, of low precision": (bf16(GAUSSIAN), MORE_LEVELS),
    "int8": (levels(*range(-127, 128)), MORE_LEVELS),
    "int4": (levels(*range(-7, 8)), MORE_LEVELS),
    "int4 of groups": (
        RNG.integers(-7, 8, (60, 128)) * np.repeat(RNG.uniform(1, 2, (60, 8)), 16, axis=1).astype(np.float32),
        MORE_LEVELS,
    ),
    "2 bits, 4 levels": (levels(-1.5, -0.5, 0.5, 1.5), MORE_LEVELS),
    "5 levels": (levels(-2, -1, 0, 1, 2), MORE_LEVELS),
    "0, s and 2s": (levels(0, 1, 2), MORE_LEVELS),
    "two ternary planes": (levels(-1.25, -1, -0.75, -0.25, 0, 0.25, 0.75, 1, 1.25), MORE_LEVELS),
    "asymmetric": (levels(-1, 0, 1.3), MORE_LEVELS + ": values are 0.1"),
    "shifted": (levels(-0.9, 0.1, 1.1), MORE_LEVELS),
    "half sparse": (np.where(RNG.random(SHAPE) < 0.5, 0, GAUSSIAN).astype(np.float32), MORE_LEVELS),
    "one real value a row": (np.where(np.eye(*SHAPE) > 0, GAUSSIAN, 0), MORE_LEVELS),
    "one real value a group": (
        np.where(np.arange(256) % 16 == 3, RNG.standard_normal((60, 256)), 0).astype(np.float32),
        MORE_LEVELS,
    ),
    "jitter": (
        (TERNARY * (1 + 0.002 * RNG.standard_normal(SHAPE))).astype(np.float32),
        MORE_LEVELS + ": values are 0.00",
    ),
    "gain in the columns": (
        TERNARY * RNG.uniform(0.6, 1, models.K).astype(np.float32),
        MORE_LEVELS + ": values are 0.",
    ),
    "all zero": (np.zeros(SHAPE, np.float32), "the weights are all zero"),
    "one outlier": (changed(TERNARY, (3, 5), 50 * SCALE), MORE_LEVELS),
    "NaN": (changed(TERNARY, (3, 5), np.nan), "the weights hold NaN or infinity"),
    "infinity": (changed(TERNARY, (3, 5), -np.inf), "the weights hold NaN or infinity"),
    "few outputs": (TERNARY[:3], "[N, K] = [3, 100] is too small to be told from any other constant"),
    "few inputs": (TERNARY[:, :3], "[N, K] = [60, 3] is too small"),
    "few weights": (TERNARY[:7, :9], "[N, K] = [7, 9] is too small"),
    "many inputs": (np.tile(TERNARY[:16], 656), "K = 65600 is over the limit of 65536"),
}
ORTHOGONAL = "its rows are orthogonal to each other: a Hadamard or permutation matrix"
DIAGONALS = "its diagonals are constant: a difference or shift matrix"
PERMUTATION = np.eye(models.K, dtype=np.float32)[RNG.permutation(models.K)]
STRUCTURES: dict[str, tuple[Array, str]] = {
    "permutation": (PERMUTATION, "99% of the weights are zero: a selection or mask"),
    "signed permutation": (PERMUTATION[:16, :] @ np.diag(RNG.choice([-1, 1], models.K)), "99% of the"),
    "small signed permutation": (np.eye(16)[RNG.permutation(16)] * RNG.choice([-1, 1], (16, 1)), ORTHOGONAL),
    "one hot": (np.eye(*SHAPE, dtype=np.float32), "a selection or mask, not a BitLinear"),
    "hadamard": (hadamard(128), ORTHOGONAL),
    "some rows of a hadamard matrix": (hadamard(128)[5:50], ORTHOGONAL),
    "some columns of a hadamard matrix": (hadamard(128)[:, 5:50], ORTHOGONAL),
    "haar": (np.kron(np.eye(8), hadamard(4)), ORTHOGONAL),
    "one sign": (np.abs(TERNARY), "all nonzero weights have one sign: a mask"),
    "negative": (-np.abs(TERNARY), "all nonzero weights have one sign: a mask"),
    "causal mask": (np.tri(100, dtype=np.float32), "all nonzero weights have one sign: a mask"),
    "average": (np.full((16, 64), 1 / 64, np.float32), "all nonzero weights have one sign: a mask"),
    "pooling": (np.kron(np.eye(8), np.full((1, 8), 0.125)), "all nonzero weights have one sign: a mask"),
    "difference": (np.eye(16, 17, 1) - np.eye(16, 17), DIAGONALS),
    "large difference": (np.eye(99, 100, 1) - np.eye(99, 100), "98% of the weights are zero"),
    "circular difference": (np.roll(np.eye(16), 1, axis=1) - np.eye(16), DIAGONALS),
    "sobel": (np.eye(20, 22, 2) - np.eye(20, 22), DIAGONALS),
    "sign of the distance": (np.sign(np.subtract.outer(np.arange(60), np.arange(100))), DIAGONALS),
}
FRONTS = {"int8": "dynamo_folded_bias", "float": "weight_only/dense"}


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("name", VALUES)
def test_a_weight_that_is_not_ternary_is_kept(name: str, front: str) -> None:
    weight, reason = VALUES[name]
    assert reason in kept(with_weight(weight, FRONTS[front]), min_weights=0)[0]


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_matrix_that_nobody_trained_is_kept(name: str) -> None:
    weight, reason = STRUCTURES[name]
    model = with_weight(weight.astype(np.float32), "weight_only/dense")
    assert reason in kept(model, min_weights=0)[0]


@pytest.mark.parametrize("name", STRUCTURES)
def test_behind_a_quantizer_any_ternary_matrix_is_a_layer(name: str) -> None:
    """The quantizer proves what it is, and packing loses nothing."""
    model = with_weight(STRUCTURES[name][0].astype(np.float32))
    _, facts = models.pack(model, min_weights=0)
    assert (facts[0].reason, facts[0].activation) == ("", "int8_token")
    models.assert_same(model, min_weights=0)


@pytest.mark.parametrize("front", FRONTS)
def test_the_weight_that_the_negatives_are_made_of_is_packed(front: str) -> None:
    _, facts = models.pack(with_weight(TERNARY, FRONTS[front]))
    assert facts[0].status == PACKED


CONV = """
  <ir_version: 10, opset_import: ["" : 18]>
  convolution (float[1, 16, 8, 8] x) => (float[1, 32, 6, 6] y) { [conv] y = Conv (x, weight) }
"""
IS_CONV = "it is a convolution; only matrix products are packed"
FILTERS = RNG.integers(-1, 2, (32, 16, 3, 3)).astype(np.float32)
CONVOLUTIONS: dict[str, tuple[Array, str, str]] = {
    "ternary": (FILTERS * np.float32(0.1), "ternary", IS_CONV),
    "ternary filters of unlike scale": (
        FILTERS * np.linspace(1, 2, 32, dtype=np.float32).reshape(-1, 1, 1, 1),
        "ternary",
        IS_CONV,
    ),
    "binary": (np.where(FILTERS > 0, 0.1, -0.1).astype(np.float32), "binary", IS_CONV),
    "dense": (RNG.standard_normal(FILTERS.shape).astype(np.float32), "dense", MORE_LEVELS),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_kept_and_its_scheme_told(name: str) -> None:
    weight, scheme, reason = CONVOLUTIONS[name]
    model = models.parse(CONV, {"weight": weight})
    assert kept(model) == [reason]
    (layer,) = models.pack(model)[1]
    assert (layer.name, layer.op, layer.scheme) == ("conv", "Conv", scheme)
    assert (layer.N, layer.K, layer.scope, layer.activation) == (32, 144, "", "")
    assert layer.bytes_before == layer.bytes_after == weight.nbytes


def test_the_filters_of_a_quantizer_in_the_graph_are_evaluated() -> None:
    online = "sign = Sign (latent) weight = Mul (sign, scale) [conv] y"
    latent = RNG.standard_normal(FILTERS.shape).astype(np.float32)
    model = models.parse(CONV.replace("[conv] y", online), {"latent": latent, "scale": np.float32(0.1)})
    assert kept(model) == [IS_CONV]
    assert models.pack(model)[1][0].scheme == "binary"


def test_a_convolution_with_filters_of_the_run_is_no_candidate() -> None:
    model = models.parse(CONV.replace("8, 8] x)", "8, 8] x, float[32, 16, 3, 3] weight)"), {})
    assert kept(model) == []


@pytest.mark.parametrize("factor", [np.nan, np.inf, 3e38])
def test_a_scale_that_is_not_finite_is_not_packed(factor: float) -> None:
    twice = 'more = Mul (scaled, "fc.weight_scale") linear = Add (more, "fc.bias")'
    model = models.build(
        "weight_only/codes_times_scale",
        values={"fc.weight_scale": np.array([factor], np.float32)},
        replace={'linear = Add (scaled, "fc.bias")': twice},
    )
    assert kept(model)[0] == "its scale or bias is not finite in float32"


def test_a_layer_with_few_weights_is_kept() -> None:
    reason = "it has 6000 weights; layers with fewer than 6001 stay float"
    assert kept(models.build("dynamo"), min_weights=6001)[0] == reason


def test_a_layer_with_enough_weights_is_packed() -> None:
    _, facts = models.pack(models.build("dynamo"), min_weights=6000)
    assert facts[0].reason == ""


def test_a_bias_computed_at_run_time_is_kept() -> None:
    replace = {
        '(add_54, add_123, "fc.bias")': "(add_54, add_123, largest)",
        "abs_1 = Abs (x)": "largest = ReduceMax (x) abs_1 = Abs (x)",
    }
    model = models.build("gemm_bias", rows="tokens", replace=replace)
    assert "the bias of the Gemm is not one constant row" in kept(model)[0]


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
