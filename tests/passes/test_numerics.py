"""Half-precision models with ``--numerics faithful``: the op has the activation codes of the original."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from bitcc import ops
from bitcc.facts import PACKED, Numerics
from bitcc.ops import ActType, BitLinear
from bitcc.passes import pack_bit_linear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.passes.layer import Layer

    Array = NDArray[Any]

HALVES = {"float16": ActType.FLOAT16, "bfloat16": ActType.BFLOAT16}
every_half = pytest.mark.parametrize("half", HALVES)


def op_of(model: onnx.ModelProto) -> BitLinear:
    """The attributes of the only packed node."""
    (node,) = models.bit_linears(model)
    found = models.attributes(node)
    enums = {"act_scale": ops.ActScale, "act_scope": ops.ActScope, "act_type": ActType, "norm": ops.Norm}
    return BitLinear(**{**found, **{name: enum(found[name]) for name, enum in enums.items()}})


def codes_of(model: onnx.ModelProto, name: str, x: Array) -> Array:
    """The value of that name, each node computed in its own type."""
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    del asked.graph.output[:]
    asked.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    with np.errstate(all="ignore"):
        (codes,) = ReferenceEvaluator(asked).run(None, {"x": x})
    return np.asarray(codes).astype(np.float32)


@every_half
@pytest.mark.parametrize("spelling", ["half_bias", "half_hf_offline"])
def test_the_codes_are_those_of_the_original(half: str, spelling: str) -> None:
    model = models.build(spelling, half=half)
    packed, (layer, _) = models.pack(model, numerics=Numerics.FAITHFUL)
    assert (layer.status, layer.numerics) == (PACKED, "faithful")
    op = op_of(packed)
    assert op.act_type == (HALVES[half] if spelling == "half_bias" else ActType.FLOAT)
    x = models.tokens(2, 50).astype(models.HALVES[half])
    codes, _ = ops.quantize(x.astype(np.float32).reshape(-1, models.K), op)
    np.testing.assert_array_equal(codes.reshape(x.shape), codes_of(model, "clamp_1", x))


@every_half
def test_float32_codes_are_others(half: str) -> None:
    """Or there would be nothing to choose."""
    model = models.build("half_bias", half=half)
    packed, (layer, _) = models.pack(model)
    assert (layer.numerics, op_of(packed).act_type) == ("float32", ActType.FLOAT)
    x = models.tokens(2, 50).astype(models.HALVES[half])
    codes, _ = ops.quantize(x.astype(np.float32).reshape(-1, models.K), op_of(packed))
    assert (codes.reshape(x.shape) != codes_of(model, "clamp_1", x)).any()


@pytest.mark.parametrize("spelling", ["dynamo", "weight_only/half"])
def test_layers_without_half_precision_codes_are_what_they_were(spelling: str) -> None:
    model = models.build(spelling)
    assert models.pack(model, numerics=Numerics.FAITHFUL) == models.pack(model)


MIXED = {
    "reciprocal = Reciprocal (clamp)": "wide = Cast <to = 1> (clamp) inverse = Reciprocal (wide) "
    "reciprocal = Cast <to = $element> (inverse)"
}


@every_half
def test_a_quantizer_of_two_types_stays_in_front_of_a_layer_with_float_activations(half: str) -> None:
    model = models.build("half_bias", half=half, replace=MIXED)
    layer = models.pack(model, numerics=Numerics.FAITHFUL)[1][0]
    assert (layer.status, layer.activation, layer.fix) == (PACKED, "float", "--numerics fp32")
    types = " and ".join(sorted(["float32", half]))
    assert f"its activation quantizer computes in {types}" in layer.reason
    assert models.pack(model)[1][0].activation == "int8_token"


@pytest.mark.parametrize("wrong", [ActType.FLOAT, ActType.BFLOAT16])
def test_codes_that_differ_are_caught(monkeypatch: pytest.MonkeyPatch, wrong: ActType) -> None:
    def rounds_otherwise(layer: Layer, _: Any) -> Layer:
        return replace(layer, op=replace(layer.op, act_type=wrong)) if layer.codes else layer

    monkeypatch.setattr(pack_bit_linear, "faithful", rounds_otherwise)
    layer = models.pack(models.build("half_bias"), numerics=Numerics.FAITHFUL)[1][0]
    assert (layer.status, layer.activation) == (PACKED, "float")
    assert "its activation codes could not be reproduced" in layer.reason
