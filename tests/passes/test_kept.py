"""What is no ternary layer stays as it is, to the byte, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx_ir as ir
import pytest
from models.matrices import DENSE, STRUCTURES, TERNARY, VALUES, with_weight

from bitcc import passes
from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Array = NDArray[Any]


def kept(model: onnx.ModelProto, **options: Any) -> list[str]:
    """The reasons why nothing was packed; the model must be what it was."""
    graph = ir.from_proto(model)
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    result = passes.pipeline(passes.PackBitLinearPass(**options))(graph)
    assert not result.modified
    assert ir.to_proto(graph).SerializeToString(deterministic=True) == before
    assert {f.status for f in graph.meta[passes.FACTS]} <= {KEPT}
    return [f.reason for f in graph.meta[passes.FACTS]]


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


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_first_rule_that_fails_is_told_not_the_size(name: str) -> None:
    model = with_weight(STRUCTURES[name][0].astype(np.float32), "weight_only/dense")
    layer = models.pack(model, min_weights=10**6)[1][0]
    assert STRUCTURES[name][1] in layer.reason
    assert layer.fix.startswith("if it was trained")


CONV = """
  <ir_version: 10, opset_import: ["" : 18]>
  convolution (float[1, 16, 8, 8] x) => (float[1, 32, 6, 6] y) { [conv] y = Conv (x, weight) }
"""
IS_CONV = "it is a convolution; only matrix products and 1x1 convolutions are packed"
RNG = np.random.default_rng(4)
FILTERS = RNG.integers(-1, 2, (32, 16, 3, 3)).astype(np.float32)
CONVOLUTIONS: dict[str, tuple[Array, str, str]] = {
    "ternary": (FILTERS * np.float32(0.1), "ternary", IS_CONV),
    "ternary filters of unlike scale": (
        FILTERS * np.linspace(1, 2, 32, dtype=np.float32).reshape(-1, 1, 1, 1),
        "ternary",
        IS_CONV,
    ),
    "binary": (np.where(FILTERS > 0, 0.1, -0.1).astype(np.float32), "binary", IS_CONV),
    "dense": (RNG.standard_normal(FILTERS.shape).astype(np.float32), "dense", DENSE),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_kept_and_its_scheme_told(name: str) -> None:
    weight, scheme, reason = CONVOLUTIONS[name]
    model = models.parse(CONV, {"weight": weight})
    assert kept(model) == [reason]
    (layer,) = models.pack(model)[1]
    assert (layer.name, layer.op, layer.scheme) == ("conv", "Conv", scheme)
    assert (layer.N, layer.K, layer.activation) == (32, 144, "")
    scope = {"dense": "", "ternary filters of unlike scale": "row"}.get(name, "tensor")
    assert (layer.scope, bool(layer.nearest)) == (scope, name == "dense")
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


def test_by_default_a_small_layer_with_float_activations_is_kept() -> None:
    """Its MatMul is as fast: ``python -m benchmarks op`` measures odd layers side by side."""
    least = "it has 4000 weights; layers with fewer than 4096 stay float"
    assert kept(with_weight(TERNARY[:40], "weight_only/dense"))[0] == least
    _, facts = models.pack(with_weight(TERNARY[:41], "weight_only/dense"))
    assert facts[0].status == PACKED


def test_by_default_a_small_layer_with_int8_activations_is_packed() -> None:
    """Left alone it would keep the nodes of its quantizer, which take longer than the op."""
    _, facts = models.pack(with_weight(TERNARY[:7]))
    assert facts[0].status == PACKED


def test_a_layer_with_enough_weights_is_packed() -> None:
    _, facts = models.pack(models.build("dynamo"), min_weights=6000)
    assert facts[0].reason == ""


def test_a_bias_computed_at_run_time_that_is_scaled_is_kept() -> None:
    replace = {
        '(add_54, add_123, "fc.bias")': "(add_54, add_123, largest)",
        "Gemm <beta = 1.0, transB = 1": "Gemm <beta = 2.0, transB = 1",
        "abs_1 = Abs (x)": "largest = ReduceMax (x) abs_1 = Abs (x)",
    }
    model = models.build("gemm_bias", rows="tokens", replace=replace)
    assert "the bias of the Gemm is not one constant row" in kept(model)[0]


UNKNOWN_WEIGHTS = {
    "random": (
        "noise = RandomUniformLike (mul_345) moved = Add (mul_345, noise) round_4 = Floor (moved)",
        "its weights are drawn at random in every run, by `",
        "export it in eval mode",
    ),
    "of another domain": (
        "round_4 = com.microsoft.QuickGelu (mul_345)",
        "an op of com.microsoft (QuickGelu)",
        "export the weights as a plain tensor",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN_WEIGHTS)
def test_weights_that_cannot_be_evaluated_are_told_of(name: str) -> None:
    node, reason, fix = UNKNOWN_WEIGHTS[name]
    replace = {"round_4 = Round (mul_345)": node, '["" : $opset]': '["" : $opset, "com.microsoft" : 1]'}
    model = models.build("dynamo", replace=replace)
    assert reason in kept(model)[0]
    layer = models.pack(model)[1][0]
    assert layer.fix.startswith(fix)
    assert (layer.scheme, layer.activation, layer.levels) == ("dense", "int8_token", ())


def test_a_weight_that_the_caller_can_override_is_told_of() -> None:
    model = models.build("dynamo_folded_bias", replace={"100] x)": '100] x, float[100, 60] "fc.dense")'})
    weight = models.arrays()["fc.dense"]
    model.graph.initializer.append(models.initializer("fc.dense", weight))
    assert kept(model)[0] == ("its weight `fc.dense` is a graph input too, so that a caller may override it")
    assert "remove_initializer_from_input" in models.pack(model)[1][0].fix


def test_a_weight_that_the_caller_must_give_is_no_candidate() -> None:
    model = models.build("dynamo_folded_bias", replace={"100] x)": '100] x, float[100, 60] "fc.dense")'})
    assert len(kept(model)) == 1


def test_an_older_opset_is_refused() -> None:
    model = ir.from_proto(models.build("torchscript", opset=15))
    model.opset_imports[""] = 12
    with pytest.raises(ir.passes.PassError) as caught:
        passes.PIPELINE(model)
    assert "opset is 12; packing its BitLinears needs 13" in str(caught.value.__cause__)


def test_a_packed_model_is_not_packed_again() -> None:
    packed, _ = models.pack(models.build("dynamo"))
    again, facts = models.pack(packed)
    assert [n.op_type for n in again.graph.node] == [n.op_type for n in packed.graph.node]
    assert [f.status for f in facts] == [KEPT]
