"""Work is split into tasks and bands, and threads share it: the numbers stay."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from models.op import assert_bits_equal

from bitcc.ops import ActScope

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.parametrize("library", ["reference", "built"], indirect=True)
ELEMENTS = pytest.mark.parametrize("element", [np.float32, np.float16, ml_dtypes.bfloat16])


@pytest.mark.parametrize("m", range(1, 71))
def test_every_number_of_tokens_is_split_rightly(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator, m: int
) -> None:
    linear = layer(N=21, K=65)
    x = rng.normal(size=(m, 65)).astype(np.float32)
    assert_bits_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


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
    assert_bits_equal(linear.run(session(linear.model(x), threads=threads), X=x), linear.expected(x))


def test_bands_of_many_tokens_join_without_a_seam(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator
) -> None:
    linear = layer(N=3, K=20_000)
    x = rng.normal(size=(2 * 104 + 7, 20_000)).astype(np.float16)
    assert_bits_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


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
    assert_bits_equal(linear.run(session(linear.model(x), threads=4), X=x), linear.expected(x))


def test_one_session_may_run_in_several_threads(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator
) -> None:
    linear = layer(N=130, K=257)
    batches = [rng.normal(size=(m, 257)).astype(np.float32) for m in (1, 2, 9, 33)]
    expected = [linear.expected(x) for x in batches]
    opened = session(linear.model(batches[0]), threads=2)

    def work(which: int) -> None:
        for _ in range(50):
            assert_bits_equal(opened.run(None, {"X": batches[which]})[0], expected[which])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
