"""What the op computes, bit for bit what the numpy spec computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from models.op import assert_bits_equal
from onnx import helper, numpy_helper

from bitcc.ops import ActScale, ActScope, ActType, Norm

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.parametrize("library", ["reference", "built"], indirect=True)
ELEMENTS = pytest.mark.parametrize("element", [np.float32, np.float16, ml_dtypes.bfloat16])


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
    assert_bits_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


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
    assert_bits_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (1, 2, 1, 3), (1,) * 10])
def test_leading_dimensions_of_any_rank_are_kept(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    shape: tuple[int, ...],
) -> None:
    linear = layer(N=20, K=70)
    x = rng.normal(size=(*shape, 70)).astype(np.float32)
    assert_bits_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


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
        assert_bits_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


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
        assert_bits_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


@pytest.mark.parametrize("name", ["W", "w_scale", "bias", "gain"])
def test_inputs_that_are_not_constant_compute_the_same(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator, name: str
) -> None:
    linear = layer(N=35, K=130, norm=Norm.RMS)
    x = rng.normal(size=(5, 130)).astype(np.float32)
    opened = session(linear.model(x, dynamic=[name]))
    got = linear.run(opened, X=x, **{name: linear.inputs[name]})
    assert_bits_equal(got, linear.expected(x))


@pytest.mark.usefixtures("isa")
def test_every_variant_gives_the_same_bits(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator
) -> None:
    for m, n, k, form in [(2, 35, 130, 0), (5, 100, 1000, 1), (11, 260, 4100, 2), (150, 100, 1100, 0)]:
        linear = layer(N=n, K=k, act_scale=ActScale(form), bias_before_scale=form == 1)
        x = rng.normal(size=(m, k)).astype(np.float32)
        assert_bits_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


@pytest.mark.parametrize("last", [70, "features"])
def test_symbolic_dimensions_but_the_last_survive_shape_inference(
    session: Callable[..., Any], layer: Callable[..., Any], last: int | str
) -> None:
    linear = layer(N=20, K=70)
    model = linear.model(np.zeros((1, 1, 70), np.float32), dims=["batch", "seq", last])
    assert session(model).get_outputs()[0].shape == ["batch", "seq", 20]


def test_dimensions_without_a_name_are_no_sizes(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator
) -> None:
    """The Reshape in front says nothing of its rows; the one behind needs to know that there are more."""
    linear = layer(N=20, K=70)
    x = rng.normal(size=(6, 70)).astype(np.float32)
    model = linear.model(x, dims=["tokens", 70])
    front = helper.make_node("Reshape", ["X", "rows"], ["flat"])
    model.graph.node[0].input[0] = "flat"
    model.graph.node[0].output[0] = "product"
    back = helper.make_node("Reshape", ["product", "parts"], ["Y"])
    model.graph.node.insert(0, front)
    model.graph.node.append(back)
    for name, sizes in {"rows": [-1, 70], "parts": [-1, 3, 20]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(sizes), name))
    assert_bits_equal(linear.run(session(model), X=x), linear.expected(x).reshape(2, 3, 20))
