"""What the op computes, bit for bit what the numpy spec computes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from bitcc.ops import ActScale, ActScope, ActType, Norm

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.parametrize("library", ["reference", "built"], indirect=True)
ELEMENTS = pytest.mark.parametrize("element", [np.float32, np.float16, ml_dtypes.bfloat16])


def assert_same_bits(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    nan = np.isnan(expected.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(got.astype(np.float32)), nan)
    bits = f"u{got.dtype.itemsize}"
    np.testing.assert_array_equal(got.view(bits)[~nan], expected.view(bits)[~nan])


@ELEMENTS
@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 64), (35, 130), (129, 63), (48, 4099)])
@pytest.mark.parametrize("m", [1, 2, 3, 5, 70])
def test_every_type_and_size_gives_the_bits_of_the_spec(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    element: Any,
    n: int,
    k: int,
    m: int,
) -> None:
    linear = layer(N=n, K=k)
    x = rng.normal(0, 4, (m, k)).astype(element)
    assert_same_bits(linear.run(session(linear.model(x)), X=x), linear.expected(x))


@pytest.mark.parametrize("form", ActScale)
@pytest.mark.parametrize("scope", ActScope)
@pytest.mark.parametrize("bias_before_scale", [0, 1])
@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("bounds", [(-128.0, 127.0, 127.0), (-7.0, 3.0, 128.0), (0.0, 1.0, 1.0)])
def test_every_attribute_gives_the_bits_of_the_spec(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    form: ActScale,
    scope: ActScope,
    bias_before_scale: int,
    per_row: bool,  # noqa: FBT001 - a parameter of a test
    bounds: tuple[float, float, float],
) -> None:
    low, high, qmax = bounds
    linear = layer(
        N=33,
        K=100,
        act_scale=form,
        act_scope=scope,
        act_floor=0.25,
        act_eps=1e-3,
        act_min=low,
        act_max=high,
        qmax=qmax,
        bias_before_scale=bias_before_scale,
        per_row=per_row,
    )
    x = rng.normal(0, 1, (9, 100)).astype(np.float32)
    x[3] *= np.float32(1e-3)  # below act_floor
    x[4] = 0
    x[5] *= np.float32(1e30)
    assert_same_bits(linear.run(session(linear.model(x)), X=x), linear.expected(x))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (1, 2, 1, 3), (1,) * 10])
def test_leading_dimensions_of_any_rank_are_kept(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    shape: tuple[int, ...],
) -> None:
    linear = layer(N=20, K=70)
    x = rng.normal(size=(*shape, 70)).astype(np.float32)
    assert_same_bits(linear.run(session(linear.model(x)), X=x), linear.expected(x))


@ELEMENTS
@pytest.mark.parametrize("scope", ActScope)
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5, 2)])
def test_no_tokens_give_an_empty_output_of_the_right_shape(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    element: Any,
    scope: ActScope,
    shape: tuple[int, ...],
) -> None:
    linear = layer(N=20, K=70, act_scope=scope)
    x = np.zeros((*shape, 70), element)
    got = linear.run(session(linear.model(x)), X=x)
    assert got.shape == (*shape, 20)
    assert got.dtype == element


@pytest.mark.parametrize("m", range(1, 71))
def test_every_number_of_tokens_is_split_rightly(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator, m: int
) -> None:
    linear = layer(N=21, K=65)
    x = rng.normal(size=(m, 65)).astype(np.float32)
    assert_same_bits(linear.run(session(linear.model(x)), X=x), linear.expected(x))


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
    assert_same_bits(got[others], clean[others])


@ELEMENTS
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(("m", "k"), [(1, 4099), (5, 70), (700, 260), (140, 20_000)])
def test_tokens_that_share_a_scale_give_the_bits_of_the_spec(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    element: Any,
    threads: int,
    m: int,
    k: int,
) -> None:
    """In several tasks and bands: the largest value is in the last."""
    linear = layer(N=5, K=k, act_scope=ActScope.TENSOR)
    x = rng.normal(0, 1, (m, k)).astype(element)
    x[-1, -1] = 37
    assert_same_bits(linear.run(session(linear.model(x), threads=threads), X=x), linear.expected(x))


@ELEMENTS
@pytest.mark.parametrize("scope", ActScope)
@pytest.mark.parametrize("rounding", [ActType.FLOAT, ActType.FLOAT16])
@pytest.mark.parametrize("per_row", [True, False])
def test_normalized_tokens_give_the_bits_of_the_spec(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    element: Any,
    scope: ActScope,
    rounding: ActType,
    per_row: bool,  # noqa: FBT001 - a parameter of a test
) -> None:
    for k, m, eps in [(1, 3, 1e-6), (70, 5, 0.0), (4099, 37, 1e-5)]:
        linear = layer(
            N=17, K=k, norm=Norm.RMS, norm_eps=eps, act_scope=scope, act_type=rounding, per_row=per_row
        )
        x = rng.normal(0, 3, (m, k)).astype(element)
        assert_same_bits(linear.run(session(linear.model(x)), X=x), linear.expected(x))


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
    assert_same_bits(linear.run(session(linear.model(x)), X=x), linear.expected(x))


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


@ELEMENTS
@pytest.mark.parametrize("form", ActScale)
@pytest.mark.parametrize("scope", ActScope)
@pytest.mark.parametrize("rounding", [ActType.FLOAT16, ActType.BFLOAT16])
def test_a_quantizer_in_half_precision_gives_the_bits_of_the_spec(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    element: Any,
    form: ActScale,
    scope: ActScope,
    rounding: ActType,
) -> None:
    for k, eps in [(70, 0.0), (4099, 2**-10), (9000, 0.0)]:
        linear = layer(N=17, K=k, act_scale=form, act_scope=scope, act_type=rounding, act_eps=eps)
        x = rng.normal(0, 3, (5, k)).astype(element)
        assert_same_bits(linear.run(session(linear.model(x)), X=x), linear.expected(x))


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
        has_scale = form is not ActScale.PRODUCT
        assert np.isnan(got).all(axis=1).tolist() == [False, has_scale, False]
        assert_same_bits(got, linear.expected(x))


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
    assert_same_bits(linear.run(session(linear.model(x)), X=x), expected)


def test_ties_are_rounded_to_even(session: Callable[..., Any], layer: Callable[..., Any]) -> None:
    linear = layer(N=16, K=64, qmax=2.0, act_min=-2.0, act_max=2.0)
    x = np.zeros((1, 64), np.float32)
    x[0, :5] = [2.0, 0.5, 1.5, -0.5, -1.5]
    assert_same_bits(linear.run(session(linear.model(x)), X=x), linear.expected(x))


@pytest.mark.parametrize("name", ["W", "w_scale", "bias", "gain"])
def test_inputs_that_are_not_constant_compute_the_same(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator, name: str
) -> None:
    linear = layer(N=35, K=130, norm=Norm.RMS)
    x = rng.normal(size=(5, 130)).astype(np.float32)
    opened = session(linear.model(x, dynamic=[name]))
    got = linear.run(opened, X=x, **{name: linear.inputs[name]})
    assert_same_bits(got, linear.expected(x))


@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 4099, 700), (37, 1100, 640), (150, 260, 1100), (600, 16, 4000), (300, 60, 70)]
)
def test_threads_do_not_change_the_numbers(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    m: int,
    n: int,
    k: int,
) -> None:
    linear = layer(N=n, K=k)
    x = rng.normal(size=(m, k)).astype(np.float32)
    assert_same_bits(linear.run(session(linear.model(x), threads=4), X=x), linear.expected(x))


@pytest.mark.usefixtures("isa")
def test_every_variant_gives_the_same_bits(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator
) -> None:
    for m, n, k, form in [(2, 35, 130, 0), (5, 100, 1000, 1), (11, 260, 4100, 2), (150, 100, 1100, 0)]:
        linear = layer(N=n, K=k, act_scale=ActScale(form), bias_before_scale=form == 1)
        x = rng.normal(size=(m, k)).astype(np.float32)
        assert_same_bits(linear.run(session(linear.model(x)), X=x), linear.expected(x))


def test_bands_of_many_tokens_join_without_a_seam(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator
) -> None:
    linear = layer(N=3, K=20_000)
    x = rng.normal(size=(2 * 104 + 7, 20_000)).astype(np.float16)
    assert_same_bits(linear.run(session(linear.model(x)), X=x), linear.expected(x))


def test_one_session_may_run_in_several_threads(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator
) -> None:
    linear = layer(N=130, K=257)
    batches = [rng.normal(size=(m, 257)).astype(np.float32) for m in (1, 2, 9, 33)]
    expected = [linear.expected(x) for x in batches]
    opened = session(linear.model(batches[0]), threads=2)

    def work(which: int) -> None:
        for _ in range(50):
            assert_same_bits(opened.run(None, {"X": batches[which]})[0], expected[which])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_symbolic_dimensions_survive_shape_inference(
    session: Callable[..., Any], layer: Callable[..., Any]
) -> None:
    linear = layer(N=20, K=70)
    model = linear.model(np.zeros((1, 1, 70), np.float32), dims=["batch", "seq", 70])
    assert session(model).get_outputs()[0].shape == ["batch", "seq", 20]
