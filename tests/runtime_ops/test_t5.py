"""Weights in layout `t5` give the bits of the numpy spec, also where they are expanded to `t2`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitcc import ops, runtime_ops

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Array = np.ndarray[Any, Any]

every_way = pytest.mark.parametrize("library", ["reference", "expanding", "built"], indirect=True)


@every_way
@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 20), (35, 64), (80, 321), (129, 640), (48, 4099)])
@pytest.mark.parametrize("m", [1, 2, 7, 70])
def test_every_size_gives_the_bits_of_the_spec(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator, n: int, k: int, m: int
) -> None:
    linear = layer(N=n, K=k, weight_format="t5")
    x = rng.normal(0, 4, (m, k)).astype(np.float32)
    np.testing.assert_array_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


@pytest.mark.parametrize("library", ["built"], indirect=True)
def test_every_variant_that_runs_here_gives_the_same_bits(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    rng: np.random.Generator,
    library: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    linear = layer(N=100, K=1000, weight_format="t5")
    x = rng.normal(size=(40, 1000)).astype(np.float32)
    for variant in runtime_ops.library_info(library).variants:
        monkeypatch.setenv("BITCC_ISA", variant)
        if runtime_ops.library_info(library).selected is not None:
            opened = session(linear.model(x))
            for tokens in (x[:1], x[:3], x):
                np.testing.assert_array_equal(linear.run(opened, X=tokens), linear.expected(tokens))


@every_way
def test_the_largest_sums_are_exact(session: Callable[..., Any], layer: Callable[..., Any]) -> None:
    linear = layer(N=16, K=ops.MAX_K, weight_format="t5")
    linear.weights[:] = 1
    linear.inputs["W"] = linear.pack()
    for tokens in (1, 70):
        x = np.full((tokens, ops.MAX_K), -1, np.float32)
        np.testing.assert_array_equal(linear.run(session(linear.model(x)), X=x), linear.expected(x))


@every_way
def test_weights_that_are_no_constants_are_read_in_every_call(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator
) -> None:
    linear = layer(N=40, K=90, weight_format="t5")
    x = rng.normal(size=(3, 90)).astype(np.float32)
    opened = session(linear.model(x, dynamic=["W"]))
    for _ in range(2):
        linear.weights[:] = rng.integers(-1, 2, linear.weights.shape)
        linear.inputs["W"] = linear.pack()
        got = linear.run(opened, X=x, W=linear.inputs["W"])
        np.testing.assert_array_equal(got, linear.expected(x))


@every_way
@pytest.mark.parametrize("tokens", [1, 30])
def test_bytes_that_no_packer_writes_are_weights_0(
    session: Callable[..., Any], layer: Callable[..., Any], rng: np.random.Generator, tokens: int
) -> None:
    linear = layer(N=16, K=20, weight_format="t5")
    x = rng.normal(size=(tokens, 20)).astype(np.float32)
    linear.weights[5] = 0
    linear.inputs["W"] = linear.pack()
    expected = linear.expected(x)
    for byte in (243, 255):
        linear.inputs["W"][0, 0, 20:24] = byte  # of row 5
        np.testing.assert_array_equal(linear.run(session(linear.model(x)), X=x), expected)


@every_way
def test_weights_in_the_shape_of_another_layout_are_refused(
    session: Callable[..., Any], layer: Callable[..., Any]
) -> None:
    linear = layer(N=20, K=70)
    x = np.zeros((1, 70), np.float32)
    with pytest.raises(Exception, match=r"W is uint8 \[2, 8, 64\], expected uint8 \[2, 4, 64\] for N = 20"):
        session(linear.model(x, attributes={"weight_format": "t5"}))
