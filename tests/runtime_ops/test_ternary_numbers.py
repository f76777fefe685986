"""What TernaryLinear computes: the sums of its spec, within float32."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from bitcc import formats, function_body, ternary_linear

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

pytestmark = pytest.mark.parametrize("library", ["reference", "built"], indirect=True)
ELEMENTS = pytest.mark.parametrize("element", [np.float32, np.float16, ml_dtypes.bfloat16])


def assert_close(got: Array, linear: Any, x: Array) -> None:
    """Of the type and shape of the spec, and as near as any order of float32 sums is."""
    expected = linear.expected(x)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    op, inputs = linear.op, linear.inputs
    columns = np.repeat(inputs["w_scale"].astype(float), op.group_size, axis=0)[: op.K]
    dense, bias = linear.weights.T * columns, inputs["bias"].astype(float)
    wide = x.astype(float).reshape(-1, op.K)
    exact = wide @ dense + bias
    errors = np.abs(got.astype(float).reshape(-1, op.N) - exact)
    float32 = (op.K + 4) * np.finfo(np.float32).eps * (np.abs(wide) @ np.abs(dense) + np.abs(bias))
    last = 0 if x.dtype == np.float32 else ml_dtypes.finfo(x.dtype).eps
    assert (errors <= float32 * (1 + last) + last * np.abs(exact)).all()


@ELEMENTS
@pytest.mark.parametrize(
    ("n", "k", "group"),
    [(1, 1, 1), (16, 64, 64), (35, 130, 16), (129, 63, 48), (48, 4099, 256), (20, 70, 64), (2050, 40, 32)],
)
@pytest.mark.parametrize("m", [1, 2, 3, 5, 70])
def test_every_type_and_size_is_close_to_the_spec(
    session: Callable[..., Any],
    ternary: Callable[..., Any],
    rng: np.random.Generator,
    element: Any,
    n: int,
    k: int,
    group: int,
    m: int,
) -> None:
    linear = ternary(N=n, K=k, group_size=group)
    x = rng.normal(0, 4, (m, k)).astype(element)
    assert_close(linear.run(session(linear.model(x)), X=x), linear, x)


@pytest.mark.parametrize("group", [16, 32, 48, 64, 128, 256, 300])
@pytest.mark.parametrize("per_row", [True, False])
def test_every_group_size_gives_exact_sums_of_whole_numbers(
    session: Callable[..., Any],
    ternary: Callable[..., Any],
    rng: np.random.Generator,
    group: int,
    per_row: bool,  # noqa: FBT001 - a parameter of a test
) -> None:
    linear = ternary(N=37, K=300, group_size=group, per_row=per_row)
    shape = linear.inputs["w_scale"].shape
    linear.inputs["w_scale"] = (2.0 ** rng.integers(-2, 3, shape)).astype(np.float32)
    linear.inputs["bias"] = rng.integers(-9, 9, linear.inputs["bias"].shape).astype(np.float32)
    x = rng.integers(-128, 128, (3, 300)).astype(np.float32)
    np.testing.assert_array_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


@ELEMENTS
def test_it_computes_what_its_function_body_computes(
    session: Callable[..., Any],
    ternary: Callable[..., Any],
    rng: np.random.Generator,
    element: Any,
    library: Path,
) -> None:
    linear = ternary(N=35, K=130, group_size=48)
    x = rng.normal(0, 4, (5, 130)).astype(element)
    model = linear.model(x)
    model.functions.append(ternary_linear.function(function_body.CASTS_SINCE, formats.FORMATS["t2"]))
    assert_close(linear.run(session(model), X=x), linear, x)
    assert_close(linear.run(session(model, library=None), X=x), linear, x)
    assert library.exists()


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (1, 2, 1, 3), (1,) * 10])
def test_leading_dimensions_of_any_rank_are_kept(
    session: Callable[..., Any], ternary: Callable[..., Any], rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    linear = ternary(N=20, K=70, group_size=32)
    x = rng.normal(size=(*shape, 70)).astype(np.float32)
    assert_close(linear.run(session(linear.model(x)), X=x), linear, x)


@ELEMENTS
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5, 2)])
def test_no_tokens_give_an_empty_output_of_the_right_shape(
    session: Callable[..., Any], ternary: Callable[..., Any], element: Any, shape: tuple[int, ...]
) -> None:
    linear = ternary(N=20, K=70, group_size=70)
    got = linear.run(session(linear.model(x := np.zeros((*shape, 70), element))), X=x)
    assert got.shape == (*shape, 20)
    assert got.dtype == element


@ELEMENTS
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 17, 69])
def test_what_is_not_finite_propagates_as_in_a_dense_product(
    session: Callable[..., Any],
    ternary: Callable[..., Any],
    rng: np.random.Generator,
    element: Any,
    poison: float,
    position: int,
) -> None:
    linear = ternary(N=50, K=70, group_size=32)
    x = rng.normal(size=(4, 70)).astype(element)
    clean = linear.run(session(linear.model(x)), X=x)
    x[2, position] = poison
    got = linear.run(session(linear.model(x)), X=x).astype(np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got[2], poison * linear.weights[:, position].astype(np.float32))
    others = [0, 1, 3]
    np.testing.assert_array_equal(got[others], clean[others].astype(np.float32))


@pytest.mark.parametrize("name", ["W", "w_scale", "bias"])
def test_inputs_that_are_not_constant_compute_the_same(
    session: Callable[..., Any], ternary: Callable[..., Any], rng: np.random.Generator, name: str
) -> None:
    linear = ternary(N=35, K=130, group_size=16)
    x = rng.normal(size=(5, 130)).astype(np.float32)
    constant = linear.run(session(linear.model(x)), X=x)
    opened = session(linear.model(x, dynamic=[name]))
    got = linear.run(opened, X=x, **{name: linear.inputs[name]})
    np.testing.assert_array_equal(got, constant)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 4099, 700), (37, 1100, 640), (300, 16, 4000)])
def test_neither_threads_nor_other_tokens_change_the_numbers(
    session: Callable[..., Any],
    ternary: Callable[..., Any],
    rng: np.random.Generator,
    m: int,
    n: int,
    k: int,
) -> None:
    linear = ternary(N=n, K=k, group_size=128)
    x = rng.normal(size=(m, k)).astype(np.float32)
    opened = session(linear.model(x))
    got = linear.run(opened, X=x)
    assert_close(got, linear, x)
    np.testing.assert_array_equal(linear.run(session(linear.model(x), threads=4), X=x), got)
    np.testing.assert_array_equal(linear.run(opened, X=x[-1:]), got[-1:])


@pytest.mark.usefixtures("isa")
def test_every_variant_is_close_to_the_spec(
    session: Callable[..., Any], ternary: Callable[..., Any], rng: np.random.Generator
) -> None:
    for n, k, group in [(35, 130, 16), (100, 1000, 128), (260, 4100, 4100)]:
        linear = ternary(N=n, K=k, group_size=group)
        x = rng.normal(size=(3, k)).astype(np.float32)
        assert_close(linear.run(session(linear.model(x)), X=x), linear, x)


def test_bands_of_many_tokens_join_without_a_seam(
    session: Callable[..., Any], ternary: Callable[..., Any], rng: np.random.Generator
) -> None:
    linear = ternary(N=3, K=20_000, group_size=160)
    x = rng.normal(size=(2 * 16 + 7, 20_000)).astype(np.float16)
    got = linear.run(session(linear.model(x)), X=x)
    assert_close(got, linear, x)
    np.testing.assert_array_equal(got[20:21], linear.run(session(linear.model(x)), X=x[20:21]))


def test_one_session_may_run_in_several_threads(
    session: Callable[..., Any], ternary: Callable[..., Any], rng: np.random.Generator
) -> None:
    linear = ternary(N=130, K=257, group_size=64)
    batches = [rng.normal(size=(m, 257)).astype(np.float32) for m in (1, 2, 9, 33)]
    opened = session(linear.model(batches[0]), threads=2)
    expected = [opened.run(None, {"X": x})[0] for x in batches]

    def work(which: int) -> None:
        for _ in range(50):
            np.testing.assert_array_equal(opened.run(None, {"X": batches[which]})[0], expected[which])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_symbolic_dimensions_survive_shape_inference(
    session: Callable[..., Any], ternary: Callable[..., Any]
) -> None:
    linear = ternary(N=20, K=70, group_size=16)
    model = linear.model(np.zeros((1, 1, 70), np.float32), dims=["batch", "seq", 70])
    assert session(model).get_outputs()[0].shape == ["batch", "seq", 20]
