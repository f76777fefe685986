"""Products of pairs give the bits of the numpy spec, also for activations that they are not made for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitcc import ops

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, TOKENS = 256, 25  # from which on the library multiplies pairs; two tokens are enough for `t2`
pytestmark = [
    pytest.mark.parametrize("library", ["pairs", "built"], indirect=True),
    pytest.mark.parametrize("weight_format", ["t2", "t5"]),
]


def extremes(rng: np.random.Generator, tokens: int, k: int, count: int) -> Any:
    """float32 [tokens, k] of which `count` activations of each token, at any place, are the largest, 127."""
    x = rng.uniform(-0.9, 0.9, (tokens, k)).astype(np.float32)
    for row in x:
        row[rng.choice(k, count, replace=False)] = 1
    return x


@pytest.mark.parametrize(
    ("n", "k"), [(ROWS, 1), (ROWS, 64), (ROWS, 161), (ROWS + 1, 333), (ROWS + 70, 640), (ROWS, 3841)]
)
@pytest.mark.parametrize("tokens", [1, 2, 3, 13, TOKENS, 70, 130])
def test_every_size_gives_the_bits_of_the_spec(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    n: int,
    k: int,
    tokens: int,
    weight_format: str,
) -> None:
    linear = layer(N=n, K=k, weight_format=weight_format)
    x = rng.normal(0, 4, (tokens, k)).astype(np.float32)
    for threads in (1, 2):
        opened = session(linear.model(x), threads=threads)
        np.testing.assert_array_equal(linear.run(opened, X=x), linear.expected(x))


@pytest.mark.parametrize("k", [200, 8000])  # in `t5`, one panel or more
@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 40, 200])
def test_any_number_of_largest_activations_is_exact(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    count: int,
    k: int,
    weight_format: str,
) -> None:
    linear = layer(N=ROWS, K=k, weight_format=weight_format)
    x = extremes(rng, 30, k, count)
    x[::3] *= -1
    x[:4] = extremes(rng, 4, k, 1)  # a block that has few beside blocks with many
    opened = session(linear.model(x))
    for _ in range(2):
        np.testing.assert_array_equal(linear.run(opened, X=x), linear.expected(x))


@pytest.mark.parametrize(("k", "tokens"), [(4096, 505), (4096, 513), (64, 16257), (ops.MAX_K, 65)])
def test_one_token_behind_many_is_exact(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    k: int,
    tokens: int,
    weight_format: str,
) -> None:
    linear = layer(N=ROWS, K=k, weight_format=weight_format)
    x = rng.normal(size=(tokens, k)).astype(np.float32)
    for threads in (1, 2):
        got = linear.run(session(linear.model(x), threads=threads), X=x)
        np.testing.assert_array_equal(got[-70:], linear.expected(x[-70:]))


def test_activations_of_minus_128_are_exact(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator, weight_format: str
) -> None:
    linear = layer(N=ROWS, K=100, weight_format=weight_format, qmax=128.0)
    x = -extremes(rng, TOKENS, 100, 3)
    np.testing.assert_array_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


def test_the_largest_sums_are_exact(
    session: Callable[..., Any], layer: Callable[..., Any], weight_format: str
) -> None:
    linear = layer(N=ROWS, K=ops.MAX_K, weight_format=weight_format)
    for weight in (-1, 1):
        linear.weights[:] = weight
        linear.inputs["W"] = linear.pack()
        for value in (-1, 1):
            x = np.full((TOKENS, ops.MAX_K), value * 125 / 127, np.float32)
            x[:, :4] = value  # the largest, which is no part of a pair
            np.testing.assert_array_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


def test_tokens_that_are_not_finite_are_nan_and_the_others_are_not(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator, weight_format: str
) -> None:
    linear = layer(N=ROWS, K=90, weight_format=weight_format)
    x = rng.normal(size=(TOKENS, 90)).astype(np.float32)
    x[2, 5], x[4, 80], x[5] = np.nan, np.inf, 0
    got = linear.run(session(linear.model(x)), X=x)
    np.testing.assert_array_equal(got, linear.expected(x))
    assert np.isnan(got[[2, 4]]).all()


def test_weights_that_are_no_constants_are_exact(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator, weight_format: str
) -> None:
    linear = layer(N=ROWS, K=90, weight_format=weight_format)
    x = rng.normal(size=(TOKENS, 90)).astype(np.float32)
    opened = session(linear.model(x, dynamic=["W"]))
    for _ in range(2):
        linear.weights[:] = rng.integers(-1, 2, linear.weights.shape)
        linear.inputs["W"] = linear.pack()
        np.testing.assert_array_equal(linear.run(opened, X=x, W=linear.inputs["W"]), linear.expected(x))


def test_first_calls_at_the_same_time_agree(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator, weight_format: str
) -> None:
    linear = layer(N=4 * ROWS, K=700, weight_format=weight_format)
    x = rng.normal(size=(TOKENS, 700)).astype(np.float32)
    expected = linear.expected(x)
    for _ in range(5):
        opened, together = session(linear.model(x)), threading.Barrier(4)
        found: list[Any] = []

        def call(opened: Any = opened, together: threading.Barrier = together, found: Any = found) -> None:
            together.wait()
            found.append(linear.run(opened, X=x))

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == len(threads)
        for got in found:
            np.testing.assert_array_equal(got, expected)
