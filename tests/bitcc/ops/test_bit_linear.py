"""``bitcc::BitLinear``: the numpy spec, and its ONNX function body in two runtimes, agree in every bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from models.op import DTYPES, assert_all_agree, layer, model_of, spec
from onnx import helper, numpy_helper

from bitcc import function_body, ops
from bitcc.errors import PackedWeightError
from bitcc.formats import FORMATS
from bitcc.ops import ActScale, ActScope, ActType, BitLinear, Norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

OPSETS = (15, 16, 17, 18, 19, 20, 21, 22, 23)
every_form = pytest.mark.parametrize("form", ActScale)
every_type = pytest.mark.parametrize("rounding", ActType)
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


SPECIAL = {
    "zero": np.zeros(64),
    "minus zero": np.full(64, -0.0),
    "one value": np.eye(64)[3],
    "one negative value": -np.eye(64)[3],
    "equal values": np.full(64, 3.7),
    "tiny": np.linspace(-1e-30, 1e-30, 64),
    "subnormal": np.linspace(-1e-40, 1e-40, 64),
    "large": np.linspace(-1e18, 1e18, 64),
    "larger": np.linspace(-3e38, 3e38, 64),
    "the largest": np.where(np.arange(64) % 2, 1, -1) * float(np.finfo(np.float32).max),
    "halves": np.append(np.arange(-31, 32) + 0.5, 127),
    "NaN": np.where(np.arange(64) == 9, np.nan, 1),
    "infinity": np.where(np.arange(64) == 9, np.inf, 1),
    "minus infinity": np.where(np.arange(64) == 9, -np.inf, 1),
    "both infinities": np.where(np.arange(64) < 9, -np.inf, np.inf),
    "only NaN": np.full(64, np.nan),
}


@every_form
@pytest.mark.parametrize(("bias_before_scale", "floor"), [(0, 0.0), (1, 0.0), (1, 1e-5)])
@every_type
@pytest.mark.parametrize("name", SPECIAL)
def test_special_tokens_agree_and_leave_the_others_alone(
    form: ActScale, bias_before_scale: int, floor: float, rounding: ActType, name: str
) -> None:
    op = BitLinear(
        K=64,
        N=20,
        act_scale=form,
        act_type=rounding,
        act_floor=floor,
        bias_before_scale=bias_before_scale,
    )
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    feeds = {"X": x, **layer(op)}
    ordinary = spec(op, feeds)
    x[1] = SPECIAL[name].astype(np.float32)
    y = assert_all_agree(op, feeds)
    np.testing.assert_array_equal(y[[0, 2]], ordinary[[0, 2]])


@every_form
@pytest.mark.parametrize("name", SPECIAL)
def test_tokens_that_share_a_scale_share_what_a_special_one_makes_of_it(form: ActScale, name: str) -> None:
    op = BitLinear(K=64, N=20, act_scale=form, act_scope=ActScope.TENSOR)
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    x[1] = SPECIAL[name].astype(np.float32)
    y = assert_all_agree(op, {"X": x, **layer(op)})
    assert np.isnan(y).all() == (not np.isfinite(x).all())


def test_one_scale_for_the_tensor_is_that_of_its_largest_token() -> None:
    x = np.array([[1, 2, -4], [0.5, 0.25, 0]], np.float32)
    codes, inverse = ops.quantize(x, BitLinear(K=3, N=1, act_scope=ActScope.TENSOR, qmax=128.0))
    np.testing.assert_array_equal(codes, [[32, 64, -128], [16, 8, 0]])
    np.testing.assert_array_equal(inverse, [[1 / 32], [1 / 32]])


@every_form
@pytest.mark.parametrize("name", [name for name, token in SPECIAL.items() if not np.isfinite(token).all()])
def test_a_token_that_is_not_finite_gives_nan(form: ActScale, name: str) -> None:
    op = BitLinear(K=64, N=20, act_scale=form)
    y = spec(op, {"X": SPECIAL[name].astype(np.float32)[None], **layer(op)})
    assert np.isnan(y).all()


@every_form
def test_a_token_of_zeros_gives_nan_where_the_original_divides_by_zero(form: ActScale) -> None:
    op = BitLinear(K=64, N=20, act_scale=form, act_floor=0.0, act_eps=0.0)
    assert np.isnan(assert_all_agree(op, {"X": np.zeros((1, 64), np.float32), **layer(op)})).all()


@every_form
@pytest.mark.parametrize(
    ("rounding", "tiny"), [(ActType.FLOAT, 1e-44), (ActType.FLOAT16, 1e-7), (ActType.BFLOAT16, 1e-40)]
)
def test_a_token_too_small_for_its_scale_gives_what_the_graph_gives(
    form: ActScale, rounding: ActType, tiny: float
) -> None:
    """The scale is infinite: codes are at their bounds and divided by infinity, and 0 * infinity is NaN.

    Where the product comes first there is no such scale, and 0 * 127 / c is 0.
    """
    op = BitLinear(K=64, N=20, act_scale=form, act_floor=0.0, act_type=rounding)
    x = np.full((2, 64), tiny, np.float32)
    x[1, 5] = 0
    feeds = {"X": x, **layer(op)}
    y = assert_all_agree(op, feeds)
    if form is ActScale.PRODUCT:
        assert np.isfinite(y).all()
    else:
        np.testing.assert_array_equal(y[0], feeds["bias"])
        assert np.isnan(y[1]).all()


@every_form
def test_a_token_of_zeros_gives_the_bias(form: ActScale) -> None:
    op = BitLinear(K=64, N=20, act_scale=form)
    feeds = {"X": np.zeros((1, 64), np.float32), **layer(op)}
    np.testing.assert_array_equal(spec(op, feeds)[0], feeds["bias"])


def test_a_large_finite_token_is_not_poisoned_by_its_sum() -> None:
    op = BitLinear(K=64, N=20)
    y = assert_all_agree(op, {"X": np.full((1, 64), 1e38, np.float32), **layer(op)})
    assert not np.isnan(y).any()


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


@pytest.mark.parametrize("k", [1, 100, 65536])
def test_accumulators_are_the_integer_product(k: int) -> None:
    rng = np.random.default_rng(k)
    codes = rng.integers(-128, 128, (4, k)).astype(np.int32)
    codes[0], codes[1] = -128, 127
    weights = rng.integers(-1, 2, (5, k)).astype(np.int8)
    weights[0], weights[1] = -1, 1
    acc = ops.accumulate(codes, weights)
    assert acc.dtype == np.int32
    np.testing.assert_array_equal(acc, codes.astype(np.int64) @ weights.T.astype(np.int64))


@every_form
@given(seed=st.integers(0, 2**32 - 1), qmax=st.sampled_from([127.0, 128.0]))
@example(seed=0, qmax=127.0)
def test_codes_round_half_to_even_within_their_bounds(form: ActScale, seed: int, qmax: float) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((4, 50)) * np.exp(rng.uniform(-5, 5, (4, 1)))).astype(np.float32)
    codes, inverse = ops.quantize(x, BitLinear(K=50, N=1, act_scale=form, qmax=qmax))
    assert codes.min() >= -128
    assert codes.max() <= 127
    exact = x.astype(np.float64) * qmax / np.abs(x).max(axis=1, keepdims=True)
    clipped = np.clip(exact, -128, 127)
    assert np.abs(codes - clipped).max() <= 0.5 + 1e-4
    np.testing.assert_allclose(inverse[:, 0], np.abs(x).max(axis=1) / qmax, rtol=5e-7)


def test_exact_halves_go_to_the_even_code() -> None:
    x = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127]], np.float32)
    for form in ActScale:
        codes, _ = ops.quantize(x, BitLinear(K=7, N=1, act_scale=form))
        np.testing.assert_array_equal(codes, [[0, 2, 2, 0, -2, -2, 127]])


@pytest.mark.parametrize(
    ("rounding", "dtype"), [(ActType.FLOAT16, "float16"), (ActType.BFLOAT16, "bfloat16")]
)
def test_codes_and_scales_are_those_of_half_precision(rounding: ActType, dtype: str) -> None:
    half = DTYPES[dtype][0]
    x = np.random.default_rng(0).standard_normal((50, 200)).astype(half)
    scale = half.type(1) / np.abs(x).max(axis=1, keepdims=True) * half.type(127)
    codes, inverse = ops.quantize(x.astype(np.float32), BitLinear(K=200, N=1, act_type=rounding))
    exact = np.rint((x * scale).astype(np.float32))
    np.testing.assert_array_equal(codes, np.minimum(exact, 127))
    np.testing.assert_array_equal(inverse, 1 / scale.astype(np.float32))
    others = ops.quantize(x.astype(np.float32), BitLinear(K=200, N=1))[0]
    assert (codes != others).any()


@pytest.mark.parametrize("name", SPECIAL)
def test_a_norm_is_of_each_token(name: str) -> None:
    op = BitLinear(K=64, N=20, norm=Norm.RMS, norm_eps=1e-6)
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    feeds = {"X": x, **layer(op)}
    ordinary = spec(op, feeds)
    x[1] = SPECIAL[name].astype(np.float32)
    y = assert_all_agree(op, feeds)
    np.testing.assert_array_equal(y[[0, 2]], ordinary[[0, 2]])
    assert np.isnan(y[1]).all() == (not np.isfinite(x[1]).all())


def test_the_norm_divides_by_the_root_of_the_mean_square() -> None:
    x = np.random.default_rng(0).standard_normal((7, 300)).astype(np.float32)
    gain = np.linspace(0.5, 2, 300, dtype=np.float32)
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-3) * gain
    got = ops.normalize(x, gain, BitLinear(K=300, N=1, norm=Norm.RMS, norm_eps=1e-3))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=4e-7)


def test_the_forms_of_the_scale_round_differently() -> None:
    """Or one of them would do: by an ulp of the scale, or a code of an input that lies between two."""
    largest = np.random.default_rng(0).uniform(1, 2, (5000, 1)).astype(np.float32)
    between = (np.arange(126, dtype=np.float32) + np.float32(0.5)) / 127 * largest
    x = np.hstack([largest, between])
    found = [ops.quantize(x, BitLinear(K=127, N=1, act_scale=form)) for form in ActScale]
    for i, (codes, inverse) in enumerate(found):
        for other_codes, other_inverse in found[i + 1 :]:
            assert (codes != other_codes).any()
            assert np.abs(codes - other_codes).max() == 1
            np.testing.assert_allclose(inverse, other_inverse, rtol=4e-7)


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


def test_the_quantizer_has_a_name_for_reports() -> None:
    assert [BitLinear(1, 1, act_scope=scope).activation for scope in ActScope] == [
        "int8_token",
        "int8_tensor",
    ]


@pytest.mark.parametrize("opset", OPSETS)
def test_the_function_is_declared_for_the_opset_of_its_model(opset: int) -> None:
    function = function_body.function(opset, FORMATS["t2"])
    assert (function.domain, function.name) == ("bitcc", "BitLinear")
    assert [(o.domain, o.version) for o in function.opset_import] == [("", opset)]
    assert list(function.input) == ["X", "W", "w_scale", "bias", "gain"]
    assert list(function.output) == ["Y"]
