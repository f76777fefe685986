"""``bitcc::BitLinear`` on zeros, tiny and huge values, NaN and infinity: spec and body agree in every bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from models.op import assert_all_agree, layer, spec

from bitcc.ops import ActScale, ActScope, ActType, BitLinear, Norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

every_form = pytest.mark.parametrize("form", ActScale)
every_type = pytest.mark.parametrize("rounding", ActType)

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


def run_among_others(op: BitLinear, name: str) -> NDArray[Any]:
    """Three tokens, the second one special; the others are what they are without it."""
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    feeds = {"X": x, **layer(op)}
    ordinary = spec(op, feeds)
    x[1] = SPECIAL[name].astype(np.float32)
    y = assert_all_agree(op, feeds)
    np.testing.assert_array_equal(y[[0, 2]], ordinary[[0, 2]])
    return y


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
    run_among_others(op, name)


@every_form
@pytest.mark.parametrize("name", SPECIAL)
def test_tokens_that_share_a_scale_share_what_a_special_one_makes_of_it(form: ActScale, name: str) -> None:
    op = BitLinear(K=64, N=20, act_scale=form, act_scope=ActScope.TENSOR)
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    x[1] = SPECIAL[name].astype(np.float32)
    y = assert_all_agree(op, {"X": x, **layer(op)})
    assert np.isnan(y).all() == (not np.isfinite(x).all())


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

    Where x is multiplied or divided first there is no such scale, and 0 * 127 / c is 0.
    """
    op = BitLinear(K=64, N=20, act_scale=form, act_floor=0.0, act_type=rounding)
    x = np.full((2, 64), tiny, np.float32)
    x[1, 5] = 0
    feeds = {"X": x, **layer(op)}
    y = assert_all_agree(op, feeds)
    if form in {ActScale.PRODUCT, ActScale.NORMALIZED}:
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


@pytest.mark.parametrize("name", SPECIAL)
def test_a_norm_is_of_each_token(name: str) -> None:
    op = BitLinear(K=64, N=20, norm=Norm.RMS, norm_eps=1e-6)
    y = run_among_others(op, name)
    assert np.isnan(y[1]).all() == (not np.isfinite(SPECIAL[name].astype(np.float32)).all())
