"""Y of the CUDA op is that of the spec and of the CPU op, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from emulation import cuda
from emulation.cuda import TYPES, expected, inputs_of
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcc.ops import ActScale, ActScope, ActType, BitLinear, Norm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]


@pytest.fixture(scope="module")
def warm(launchers: Any) -> Iterator[Any]:
    """A launcher whose kernels stay loaded."""
    with launchers() as launcher:
        op = BitLinear(K=1, N=1)
        node = launcher.create(op, inputs_of(op, np.random.default_rng(0)))
        yield launcher
        node.close()


@st.composite
def layers(draw: st.DrawFn) -> BitLinear:
    low, high, qmax = draw(st.sampled_from([(-128, 127, 127), (-127, 127, 127), (-128, 127, 128)]))
    return BitLinear(
        K=draw(st.integers(1, 300) | st.sampled_from([1100, 4200])),
        N=draw(st.integers(1, 150)),
        act_scale=draw(st.sampled_from(ActScale)),
        act_scope=draw(st.sampled_from(ActScope)),
        act_type=draw(st.sampled_from(ActType)),
        act_floor=draw(st.sampled_from([0.0, 2.0**-16])),
        act_eps=draw(st.sampled_from([0.0, 2.0**-14])),
        qmax=float(qmax),
        act_min=float(low),
        act_max=float(high),
        bias_before_scale=draw(st.integers(0, 1)),
        weight_format=draw(st.sampled_from(["t2", "t5"])),
        norm=draw(st.sampled_from(Norm)),
        norm_eps=draw(st.sampled_from([0.0, 2.0**-20])),
    )


@pytest.mark.parametrize("element", TYPES)
@given(
    op=layers(),
    leading=st.sampled_from([(), (0,), (1,), (2,), (3, 0), (3, 3), (1, 32), (130,), (1, 2, 35)]),
    seed=st.integers(0, 2**32 - 1),
    per_row=st.booleans(),
    constant=st.booleans(),
    order=st.integers(0, 2),
)
@settings(max_examples=25, deadline=None)
def test_y_is_that_of_the_spec_and_of_the_cpu(
    warm: Any, element: int, op: BitLinear, leading: tuple[int, ...], seed: int, *, per_row: bool,
    constant: bool, order: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    x = (rng.normal(0, 1, (*leading, op.K)) * 2.0 ** rng.integers(-8, 8)).astype(TYPES[element])
    inputs = inputs_of(op, rng, per_row=per_row)
    warm.driver.set(order=order)
    np.testing.assert_array_equal(
        run(warm, op, inputs, x, element, constant=constant), expected(op, inputs, x)
    )
    np.testing.assert_array_equal(run(warm, op, inputs, x, element, cpu=True), expected(op, inputs, x))


@pytest.mark.parametrize("scope", ActScope)
@pytest.mark.parametrize("special", [np.inf, np.nan, 0.0])
def test_special_values_poison_what_they_do_in_the_spec(warm: Any, special: float, scope: ActScope) -> None:
    rng = np.random.default_rng(1)
    op = BitLinear(K=70, N=20, act_scope=scope, act_floor=0.0)
    inputs, x = inputs_of(op, rng), rng.normal(0, 1, (5, 70)).astype(np.float32)
    x[1], x[3, 69] = 0.0, special
    y = run(warm, op, inputs, x)
    np.testing.assert_array_equal(y, expected(op, inputs, x))
    assert np.isnan(y[1]).all() or scope is ActScope.TENSOR


@pytest.mark.parametrize("scope", ActScope)
@pytest.mark.parametrize("tokens", [59, 60, 119, 177])  # the tests' bands are of 58 such tokens
def test_bands_of_tokens_make_the_whole(warm: Any, tokens: int, scope: ActScope) -> None:
    rng = np.random.default_rng(2)
    op = BitLinear(K=1100, N=3, act_scope=scope)
    inputs, x = inputs_of(op, rng), rng.normal(0, 1, (tokens, 1100)).astype(np.float32)
    warm.driver.take_launches()
    np.testing.assert_array_equal(run(warm, op, inputs, x), expected(op, inputs, x))
    names = [name for name, _ in warm.driver.take_launches()]
    assert names.count("bitcc_quantize_float") == -(-tokens // 58)


@pytest.mark.parametrize(
    ("tokens", "n", "family"),
    [
        (1, 5000, "gemv"), (2, 16, "gemm_few"), (64, 63, "gemm_few"), (64, 64, "gemm"), (64, 383, "gemm"),
        (64, 384, "gemm_many"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("scope", ActScope)
def test_outputs_decide_what_multiplies_and_all_is_on_the_stream(
    warm: Any, tokens: int, n: int, family: str, scope: ActScope
) -> None:
    rng = np.random.default_rng(3)
    op = BitLinear(K=64, N=n, act_scope=scope)
    inputs, x = inputs_of(op, rng), rng.normal(0, 1, (tokens, 64)).astype(np.float16)
    warm.driver.take_launches()
    run(warm, op, inputs, x, 10)
    families = ["absmax"] * (scope is ActScope.TENSOR) + ["quantize", family]
    assert warm.driver.take_launches() == [(f"bitcc_{name}_float16", cuda.STREAM) for name in families]


def run(
    launcher: Any, op: BitLinear, inputs: Mapping[str, Array], x: Array, element: int = 1, **how: bool
) -> Array:
    node = launcher.create(op, inputs, element, **how)
    try:
        return np.asarray(node.run(x))
    finally:
        node.close()
