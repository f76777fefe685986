"""What the op computes of NaN, infinity, zeros and the ends of the range: what the numpy spec says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from models.op import assert_bits_equal

from bitcc.ops import ActScale, ActScope, ActType, Norm

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.parametrize("library", ["reference", "built"], indirect=True)
ELEMENTS = pytest.mark.parametrize("element", [np.float32, np.float16, ml_dtypes.bfloat16])


@ELEMENTS
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("k", "position"), [(4098, 0), (4098, 4097), (70, 69)])
@pytest.mark.parametrize("bias_before_scale", [0, 1])
def test_a_row_that_is_not_finite_is_nan_and_the_others_are_untouched(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    element: Any,
    poison: float,
    k: int,
    position: int,
    bias_before_scale: int,
) -> None:
    linear = layer(N=17, K=k, bias_before_scale=bias_before_scale)
    x = rng.normal(size=(6, k)).astype(element)
    clean = linear.run(session(linear.model(x)), X=x)
    x[2, position] = poison
    got = linear.run(session(linear.model(x)), X=x)
    assert np.isnan(got[2].astype(np.float32)).all()
    others = [0, 1, 3, 4, 5]
    assert_bits_equal(got[others], clean[others])


@pytest.mark.parametrize("eps", [0.0, 1e-6])
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e25, 3e38, np.nan, np.inf])
def test_a_token_at_the_ends_of_the_range_is_normalized_as_the_spec_does(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    eps: float,
    value: float,
) -> None:
    linear = layer(N=17, K=70, norm=Norm.RMS, norm_eps=eps)
    x = rng.normal(size=(3, 70)).astype(np.float32)
    x[1] = value
    assert_bits_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("token", [0, 699])
def test_one_value_that_is_not_finite_makes_all_tokens_nan_that_share_its_scale(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    poison: float,
    token: int,
) -> None:
    linear = layer(N=17, K=260, act_scope=ActScope.TENSOR)
    x = rng.normal(size=(700, 260)).astype(np.float32)
    x[token, 3] = poison
    assert np.isnan(linear.run(session(linear.model(x)), X=x)).all()


@pytest.mark.parametrize("form", ActScale)
def test_a_zero_row_without_a_floor_is_nan(
    session: Callable[..., Any], layer: Callable[..., Any], form: ActScale
) -> None:
    linear = layer(N=17, K=64, act_floor=0.0, act_scale=form)
    x = np.ones((3, 64), np.float32)
    x[1] = 0
    got = linear.run(session(linear.model(x)), X=x)
    assert np.isnan(got[1]).all()
    assert np.isfinite(got[[0, 2]]).all()


@pytest.mark.parametrize("form", ActScale)
@pytest.mark.parametrize("scope", ActScope)
@pytest.mark.parametrize(
    ("rounding", "tiny"), [(ActType.FLOAT, 1e-44), (ActType.FLOAT16, 1e-7), (ActType.BFLOAT16, 1e-40)]
)
def test_a_scale_that_is_infinite_gives_the_bits_of_the_spec(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    form: ActScale,
    scope: ActScope,
    rounding: ActType,
    tiny: float,
) -> None:
    for k in (70, 5000):
        linear = layer(N=17, K=k, act_floor=0.0, act_scale=form, act_scope=scope, act_type=rounding)
        x = np.full((3, k), tiny, np.float32)
        x[1, -1] = 0
        x[2] *= -1
        got = linear.run(session(linear.model(x)), X=x)
        has_scale = form not in {ActScale.PRODUCT, ActScale.NORMALIZED}
        assert np.isnan(got).all(axis=1).tolist() == [False, has_scale, False]
        assert_bits_equal(got, linear.expected(x))


@pytest.mark.parametrize("form", ActScale)
@pytest.mark.parametrize("magnitude", [1e-45, 3e-43, 1e-38, 1e-36, 1e30, 3e38])
def test_the_ends_of_the_float_range_follow_the_spec(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    form: ActScale,
    magnitude: float,
) -> None:
    linear = layer(N=17, K=64, act_floor=0.0, act_scale=form)
    x = (rng.uniform(-1, 1, (2, 64)) * magnitude).astype(np.float32)
    x[:, 0] = magnitude
    with np.errstate(all="ignore"):
        expected = linear.expected(x)
    assert_bits_equal(linear.run(session(linear.model(x)), X=x), expected)


def test_ties_are_rounded_to_even(session: Callable[..., Any], layer: Callable[..., Any]) -> None:
    linear = layer(N=16, K=64, qmax=2.0, act_min=-2.0, act_max=2.0)
    x = np.zeros((1, 64), np.float32)
    x[0, :5] = [2.0, 0.5, 1.5, -0.5, -1.5]
    assert_bits_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))
