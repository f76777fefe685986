"""``bitcc::TernaryLinear``: the numpy spec and its ONNX function body agree up to rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models.op import DTYPES, layer, run_in_onnx, run_in_onnxruntime, spec

from bitcc import formats, ternary_linear
from bitcc.errors import PackedWeightError
from bitcc.ternary_linear import TernaryLinear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

OPSETS = (13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
RUNTIMES = {"onnxruntime": run_in_onnxruntime, "onnx": run_in_onnx}


def exact(op: TernaryLinear, feeds: dict[str, Array]) -> tuple[Array, Array]:
    """(y, the sum of the magnitudes that make it) in float64, from the definition alone."""
    codes = formats.FORMATS["t2"].unpack(feeds["W"], op.N, op.K).astype(np.float64)
    group = np.arange(op.K) // op.group_size
    dense = codes * np.broadcast_to(feeds["w_scale"], (op.groups, op.N))[group].T
    x, bias = feeds["X"].astype(np.float64), feeds["bias"].astype(np.float64)
    return x @ dense.T + bias, np.abs(x) @ np.abs(dense).T + np.abs(bias)


def error_bound(op: TernaryLinear, y: Array, magnitudes: Array, dtype: str) -> Array:
    """K products and sums in float32, in any order, and one rounding to the type of the output."""
    rounding = float(np.finfo(np.float32).eps) / 2
    accumulated = (op.K + 2) * rounding * 1.01 * magnitudes + 1e-37
    info = ml_dtypes.finfo(DTYPES[dtype][0])
    return accumulated + float(info.eps) / 2 * (np.abs(y) + accumulated) + float(info.smallest_subnormal)


def assert_all_agree(
    op: TernaryLinear, feeds: dict[str, Array], dtype: str = "float32", opset: int = 18
) -> Array:
    """The spec and both runtimes are as near to the exact result as float32 lets them."""
    want, magnitudes = exact(op, feeds)
    bound = error_bound(op, want, magnitudes, dtype)
    computed = spec(op, feeds)
    for y in (computed, *(run(op, feeds, dtype, opset) for run in RUNTIMES.values())):
        assert y.dtype == DTYPES[dtype][0]
        assert y.shape == want.shape
        assert (np.abs(y.astype(np.float64) - want) <= bound).all()
    return computed


def group_sizes(k: int) -> list[int]:
    """All of the row, and what the op allows below."""
    return [k, *(size for size in (16, 32, 48, 128) if size < k)]


@settings(max_examples=150)
@given(
    n=st.integers(1, 70),
    k=st.integers(1, 300),
    lead=st.sampled_from([(), (0,), (1,), (2,), (3, 5), (0, 4), (4, 0), (70,), (2, 1, 3)]),
    dtype=st.sampled_from(list(DTYPES)),
    per_row=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_the_body_computes_the_spec(
    n: int,
    k: int,
    lead: tuple[int, ...],
    dtype: str,
    per_row: bool,  # noqa: FBT001 - drawn
    seed: int,
    data: st.DataObject,
) -> None:
    op = TernaryLinear(K=k, N=n, group_size=data.draw(st.sampled_from(group_sizes(k))))
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*lead, k)) * np.exp(rng.uniform(-3, 3, (*lead, 1)))
    assert_all_agree(op, {"X": x.astype(DTYPES[dtype][0]), **layer(op, seed, per_row=per_row)}, dtype)


@pytest.mark.parametrize("group_size", [97, 32])
@pytest.mark.parametrize("opset", OPSETS)
def test_the_body_computes_the_spec_in_every_opset(group_size: int, opset: int) -> None:
    op = TernaryLinear(K=97, N=33, group_size=group_size)
    x = np.random.default_rng(opset).standard_normal((2, 5, 97)).astype(np.float32)
    assert_all_agree(op, {"X": x, **layer(op)}, opset=opset)


@pytest.mark.parametrize("lead", [(0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("opset", [15, 18, 23])
def test_no_tokens_give_no_tokens(lead: tuple[int, ...], opset: int) -> None:
    op = TernaryLinear(K=50, N=7, group_size=16)
    y = assert_all_agree(op, {"X": np.zeros((*lead, 50), np.float32), **layer(op)}, opset=opset)
    assert y.shape == (*lead, 7)


@pytest.mark.parametrize("k", [17, 31, 33, 100])
def test_the_last_group_may_be_partial(k: int) -> None:
    """A token with ones in the last group alone sees the scales of that group alone."""
    op = TernaryLinear(K=k, N=5, group_size=16)
    codes = np.ones((5, k), np.int8)
    feeds = {"X": np.zeros((1, k), np.float32), **layer(op, codes=codes), "bias": np.zeros(1, np.float32)}
    feeds["X"][:, 16 * (op.groups - 1) :] = 1
    y = assert_all_agree(op, feeds)
    np.testing.assert_allclose(y[0], feeds["w_scale"][-1] * (k - 16 * (op.groups - 1)), rtol=1e-6)


def test_small_integers_are_exact_in_any_order() -> None:
    op = TernaryLinear(K=1000, N=40, group_size=128)
    rng = np.random.default_rng(0)
    feeds = {"X": rng.integers(-100, 100, (7, 1000)).astype(np.float32), **layer(op)}
    feeds["w_scale"] = 2.0 ** rng.integers(-2, 3, feeds["w_scale"].shape).astype(np.float32)
    feeds["bias"] = rng.integers(-100, 100, 40).astype(np.float32)
    want, _ = exact(op, feeds)
    for y in (spec(op, feeds), *(run(op, feeds) for run in RUNTIMES.values())):
        np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_token_that_is_not_finite_leaves_the_others_alone(value: float) -> None:
    op = TernaryLinear(K=64, N=20, group_size=16)
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    feeds = {"X": x, **layer(op)}
    ordinary = spec(op, feeds)
    x[1, 9] = value
    zero = formats.FORMATS["t2"].unpack(feeds["W"], 20, 64)[:, 9] == 0
    for y in (spec(op, feeds), *(run(op, feeds) for run in RUNTIMES.values())):
        np.testing.assert_allclose(y[[0, 2]], ordinary[[0, 2]], rtol=1e-4, atol=1e-4)
        assert not np.isfinite(y[1]).any()
        assert np.isnan(y[1, zero]).all()  # 0 * infinity, as a dense product has it


def test_an_output_over_the_range_of_its_type_is_infinite() -> None:
    op = TernaryLinear(K=64, N=4, group_size=64)
    feeds = {"X": np.full((1, 64), 6e4, np.float16), **layer(op, codes=np.ones((4, 64), np.int8))}
    feeds["w_scale"] = np.ones((1, 1), np.float32)
    for y in (spec(op, feeds), *(run(op, feeds, "float16") for run in RUNTIMES.values())):
        assert np.isposinf(y).all()


def test_the_spec_refuses_weights_of_another_shape() -> None:
    op = TernaryLinear(K=64, N=20, group_size=64)
    feeds = layer(TernaryLinear(K=64, N=40, group_size=64))
    with pytest.raises(PackedWeightError, match="for N = 20, K = 64"):
        spec(op, {"X": np.zeros((1, 64), np.float32), **feeds})


def test_the_spec_refuses_an_unknown_layout() -> None:
    op = TernaryLinear(K=64, N=20, group_size=64, layout_version=2)
    with pytest.raises(PackedWeightError, match="weight format `t2` version 2 is unknown"):
        spec(op, {"X": np.zeros((1, 64), np.float32), **layer(op)})


def test_every_attribute_is_always_written_as_a_plain_number_or_word() -> None:
    attributes = TernaryLinear(K=3, N=4, group_size=3).attributes()
    assert attributes == {"K": 3, "N": 4, "group_size": 3, "weight_format": "t2", "layout_version": 1}
    assert list(attributes) == list(ternary_linear.function(18, formats.FORMATS["t2"]).attribute)


@pytest.mark.parametrize(("k", "size", "groups"), [(1, 1, 1), (64, 64, 1), (64, 16, 4), (65, 16, 5)])
def test_every_column_has_a_group(k: int, size: int, groups: int) -> None:
    assert TernaryLinear(K=k, N=1, group_size=size).groups == groups


@pytest.mark.parametrize("opset", OPSETS)
def test_the_function_is_declared_for_the_opset_of_its_model(opset: int) -> None:
    function = ternary_linear.function(opset, formats.FORMATS["t2"])
    assert (function.domain, function.name) == ("bitcc", "TernaryLinear")
    assert [(o.domain, o.version) for o in function.opset_import] == [("", opset)]
    assert list(function.input) == ["X", "W", "w_scale", "bias"]
    assert list(function.output) == ["Y"]
