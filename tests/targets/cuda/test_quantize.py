"""The CUDA quantizer, run on the host, is the numpy spec of the op."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcc import ops
from bitcc.ops import ActScale, ActScope, ActType, BitLinear, Norm
from bitcc.targets import _cuda

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

few = settings(max_examples=40, deadline=None)
ORDERS = range(3)
TYPES = {"float": np.dtype(np.float32), "float16": np.dtype(np.float16)}
TYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)


def kernel(family: str, element: str) -> _cuda.Kernel:
    (found,) = (k for k in _cuda.KERNELS if k.family == family and k.element.name == element)
    return found


@st.composite
def layers(draw: st.DrawFn) -> BitLinear:
    low, high, qmax = draw(st.sampled_from([(-128, 127, 127), (-127, 127, 127), (-128, 127, 128)]))
    return BitLinear(
        K=draw(st.integers(1, 1100)),
        N=1,
        act_scale=draw(st.sampled_from(ActScale)),
        act_scope=draw(st.sampled_from(ActScope)),
        act_type=draw(st.sampled_from(ActType)),
        act_floor=draw(st.sampled_from([0.0, 2.0**-16])),
        act_eps=draw(st.sampled_from([0.0, 2.0**-14])),
        qmax=qmax,
        act_min=low,
        act_max=high,
    )


@pytest.mark.parametrize("element", TYPES)
@given(layer=layers(), m=st.integers(1, 4), seed=st.integers(0, 2**32 - 1), order=st.sampled_from(ORDERS))
@few
def test_codes_sums_and_scales_are_those_of_the_spec(
    emulated: Any, element: str, layer: BitLinear, m: int, seed: int, order: int
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(0, 1, (m, layer.K)) * 2.0 ** rng.integers(-8, 8)).astype(TYPES[element])
    check(emulated, element, layer, x, order)


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan, 0.0, -0.0])
@pytest.mark.parametrize("scope", ActScope)
@pytest.mark.parametrize("form", ActScale)
def test_special_values_poison_what_they_do_in_the_spec(
    emulated: Any, special: float, scope: ActScope, form: ActScale
) -> None:
    layer = BitLinear(K=70, N=1, act_scale=form, act_scope=scope, act_floor=0.0)
    x = np.random.default_rng(3).normal(0, 1, (3, 70)).astype(np.float32)
    x[1, 69] = special
    check(emulated, "float", layer, x)
    x[1] = special  # a token of zeros has no scale
    check(emulated, "float", layer, x)
    x[1] = 1e-45  # and that of a subnormal one may be infinite
    check(emulated, "float", layer, x)


@pytest.mark.parametrize("element", TYPES)
@pytest.mark.parametrize("scope", ActScope)
@pytest.mark.parametrize("order", ORDERS)
def test_the_norm_is_that_of_the_spec(emulated: Any, element: str, scope: ActScope, order: int) -> None:
    layer = BitLinear(K=777, N=1, act_scope=scope, norm=Norm.RMS, norm_eps=1e-6)
    rng = np.random.default_rng(4)
    x = rng.normal(0, 3, (3, layer.K)).astype(TYPES[element])
    check(emulated, element, layer, x, order, gain=rng.normal(1, 0.1, layer.K).astype(np.float32))


@pytest.mark.parametrize(("family", "scope"), [("quantize", ActScope.TOKEN), ("absmax", ActScope.TENSOR)])
def test_no_barrier_can_be_left_out(emulated: Any, family: str, scope: ActScope) -> None:
    layer = BitLinear(K=2000, N=1, norm=Norm.RMS, act_scope=scope)
    x = np.random.default_rng(5).normal(0, 1, (2, layer.K)).astype(np.float32)
    barriers = emulated.barriers[kernel(family, "float").symbol]
    assert barriers
    for without in barriers:
        assert any(is_wrong(emulated, layer, x, order, without) for order in ORDERS)


def is_wrong(emulated: Any, layer: BitLinear, x: Array, order: int, without: int) -> bool:
    try:
        check(emulated, "float", layer, x, order, without=without)
    except AssertionError:
        return True
    return False


def check(
    emulated: Any, element: str, layer: BitLinear, x: Array, order: int = 0, gain: Array | None = None,
    without: int = -1,
) -> None:  # fmt: skip
    """Compare with `bitcc.ops`, which computes with numpy."""
    m, k_blocks = len(x), -(-layer.K // 64) * 4
    gain = np.ones(layer.K, np.float32) if gain is None else gain
    token = {
        "x": x, "gain": gain, "absmax": np.zeros(1, np.int32), "k": layer.K, "has_norm": int(layer.norm),
        "norm_eps": layer.norm_eps,
    }  # fmt: skip
    if layer.act_scope is ActScope.TENSOR:
        token |= emulated.launch(kernel("absmax", element), (m, 1), order, without, **token)
    got = emulated.launch(
        kernel("quantize", element), (m, 1), order, without, **token,
        q=np.full((m, 16 * k_blocks), 99, np.int8), inverse=np.zeros(m, np.float32),
        sums=np.zeros(m, np.int32), k_blocks=k_blocks, per_tensor=int(layer.act_scope),
        act_scale=int(layer.act_scale), act_type=int(layer.act_type), act_floor=layer.act_floor,
        act_eps=layer.act_eps, qmax=layer.qmax, act_min=int(layer.act_min), act_max=int(layer.act_max),
    )  # fmt: skip
    normalized = ops.normalize(x.astype(np.float32), gain, layer)
    codes, inverse = ops.quantize(normalized, layer)
    np.testing.assert_array_equal(got["inverse"], inverse[:, 0])
    usable = np.isfinite(inverse[:, 0])  # a token that is NaN is NaN whatever its codes are
    q = got["q"].reshape(m, -1)
    np.testing.assert_array_equal(q[usable, : layer.K], codes[usable])
    assert not q[:, layer.K :].any()
    np.testing.assert_array_equal(got["sums"][usable], codes.sum(1)[usable])
