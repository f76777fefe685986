"""``bitcc::BitLinear``: the numpy spec, and its ONNX function body in two runtimes, agree in every bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.op import DTYPES, assert_all_agree, layer, model_of, spec
from onnx import helper, numpy_helper

from bitcc import function_body
from bitcc.errors import PackedWeightError
from bitcc.formats import FORMATS
from bitcc.ops import ActScale, ActScope, ActType, BitLinear, Norm

OPSETS = (13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
every_form = pytest.mark.parametrize("form", ActScale)
every_scope = pytest.mark.parametrize("scope", ActScope)


quantizers = st.fixed_dictionaries(
    {
        "act_scale": st.sampled_from(list(ActScale)),
        "act_scope": st.sampled_from(list(ActScope)),
        "act_type": st.sampled_from(list(ActType)),
        "act_floor": st.sampled_from([0.0, 1e-5, 1e-2]),
        "act_eps": st.sampled_from([0.0, 1e-6]),
        "qmax": st.sampled_from([127.0, 128.0]),
        "act_min": st.sampled_from([-128.0, -127.0]),
        "bias_before_scale": st.sampled_from([0, 1]),
        "norm": st.sampled_from(list(Norm)),
        "norm_eps": st.sampled_from([0.0, 1e-5]),
        "weight_format": st.sampled_from(list(FORMATS)),
    }
)


@settings(max_examples=150)
@given(
    n=st.integers(1, 70),
    k=st.integers(1, 200),
    lead=st.sampled_from([(0,), (1,), (2,), (3, 5), (0, 4), (4, 0), (70,), (2, 1, 3)]),
    quantizer=quantizers,
    dtype=st.sampled_from(list(DTYPES)),
    per_row=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_body_computes_the_spec(
    n: int,
    k: int,
    lead: tuple[int, ...],
    quantizer: dict[str, Any],
    dtype: str,
    per_row: bool,  # noqa: FBT001 - drawn
    seed: int,
) -> None:
    op = BitLinear(K=k, N=n, **quantizer)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*lead, k)) * np.exp(rng.uniform(-8, 8, (*lead, 1)))
    feeds = {"X": x.astype(DTYPES[dtype][0]), **layer(op, seed, per_row=per_row)}
    assert_all_agree(op, feeds, dtype)


@every_scope
def test_an_optimised_body_is_not_fused_with_a_constant_behind_it(scope: ActScope) -> None:
    op = BitLinear(K=64, N=33, act_scope=scope)
    x = np.random.default_rng(0).standard_normal((2, 3, 64)).astype(np.float32)
    feeds = {**layer(op), "bias": np.zeros(1, np.float32)}
    model = model_of(op)
    del model.graph.input[1:]
    constants = {**feeds, "constant": np.linspace(-2, 2, 33, dtype=np.float32).reshape(1, 1, 33)}
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in constants.items())
    model.graph.node.append(helper.make_node("Add", ["Y", "constant"], ["sum"]))
    model.graph.output[0].name = "sum"
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"X": x})
    np.testing.assert_allclose(got, spec(op, {"X": x, **feeds}) + constants["constant"], rtol=1e-5, atol=1e-4)


@every_form
@pytest.mark.parametrize(
    ("scope", "rounding", "norm"),
    [
        (ActScope.TOKEN, ActType.FLOAT, Norm.NONE),
        (ActScope.TENSOR, ActType.FLOAT16, Norm.RMS),
        (ActScope.TOKEN, ActType.BFLOAT16, Norm.NONE),
    ],
)
@pytest.mark.parametrize("opset", OPSETS)
def test_the_body_computes_the_spec_in_every_opset(
    form: ActScale, scope: ActScope, rounding: ActType, norm: Norm, opset: int
) -> None:
    op = BitLinear(K=97, N=33, act_scale=form, act_scope=scope, act_type=rounding, norm=norm, norm_eps=1e-6)
    x = np.random.default_rng(opset).standard_normal((2, 5, 97)).astype(np.float32)
    assert_all_agree(op, {"X": x, **layer(op)}, opset=opset)


@every_scope
@every_form
@pytest.mark.parametrize("lead", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("opset", [15, 17, 18, 20, 23])
def test_no_tokens_give_no_tokens(scope: ActScope, form: ActScale, lead: tuple[int, ...], opset: int) -> None:
    op = BitLinear(K=50, N=7, act_scale=form, act_scope=scope, norm=Norm.RMS)
    y = assert_all_agree(op, {"X": np.zeros((*lead, 50), np.float32), **layer(op)}, opset=opset)
    assert y.shape == (*lead, 7)


@every_form
@pytest.mark.parametrize("k", [1, 63, 64, 65, 255, 256, 4095, 4096, 16383, 16384])
@pytest.mark.parametrize("weight", [-1, 1])
def test_the_largest_accumulators_are_exact(form: ActScale, k: int, weight: int) -> None:
    op = BitLinear(K=k, N=3, act_scale=form, qmax=128.0)
    codes = np.full((3, k), weight, np.int8)
    feeds = {
        "X": np.stack([np.full(k, -2.5), np.full(k, 2.5)]).astype(np.float32),
        **layer(op, codes=codes),
        "w_scale": np.ones(1, np.float32),
        "bias": np.zeros(1, np.float32),
    }
    y = assert_all_agree(op, feeds)
    largest = weight * k * np.array([-128, 127])
    inverse = np.float32(2.5) / np.float32(128)
    np.testing.assert_allclose(y, np.repeat(largest[:, None] * inverse, 3, axis=1), rtol=3e-7)


def test_the_spec_refuses_weights_of_another_shape() -> None:
    op = BitLinear(K=64, N=20)
    feeds = layer(BitLinear(K=64, N=40))
    with pytest.raises(PackedWeightError, match="for N = 20, K = 64"):
        spec(op, {"X": np.zeros((1, 64), np.float32), **feeds})


def test_the_spec_refuses_an_unknown_layout() -> None:
    op = BitLinear(K=64, N=20, layout_version=2)
    with pytest.raises(PackedWeightError, match="weight format `t2` version 2 is unknown"):
        spec(op, {"X": np.zeros((1, 64), np.float32), **layer(op)})


def test_every_attribute_is_always_written_as_a_plain_number_or_word() -> None:
    attributes = BitLinear(K=3, N=4, act_scale=ActScale.QUOTIENT).attributes()
    assert {type(value) for value in attributes.values()} == {int, float, str}
    assert attributes["act_scale"] == 2
    assert list(attributes) == list(function_body.function(18, FORMATS["t2"]).attribute)


@pytest.mark.parametrize("opset", OPSETS)
def test_the_function_is_declared_for_the_opset_of_its_model(opset: int) -> None:
    function = function_body.function(opset, FORMATS["t2"])
    assert (function.domain, function.name) == ("bitcc", "BitLinear")
    assert [(o.domain, o.version) for o in function.opset_import] == [("", opset)]
    assert list(function.input) == ["X", "W", "w_scale", "bias", "gain"]
    assert list(function.output) == ["Y"]
