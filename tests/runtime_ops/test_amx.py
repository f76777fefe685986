"""The op with AMX tiles, emulated where the CPU has none: every shape, bit for bit the numpy spec."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitcc import runtime_ops

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.parametrize("library", ["emulated"], indirect=True)
drawn = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fault(library: Path) -> bytes | None:
    """What a CPU would not have let pass."""
    function = ctypes.CDLL(str(library)).emulated_fault
    function.restype = ctypes.c_char_p
    found = function()
    assert found is None or isinstance(found, bytes)
    return found


def test_the_emulated_variant_passes_its_self_test(library: Path) -> None:
    info = runtime_ops.library_info(library)
    assert (info.selected, info.wrong) == ("amx_emulated", {})


@given(
    m=st.integers(1, 300) | st.sampled_from([15, 16, 17, 31, 32, 33, 127, 128, 129]),
    n=st.integers(1, 200),
    k=st.integers(1, 1200) | st.sampled_from([255, 256, 257, 320, 512]),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32 - 1),
)
@drawn
def test_every_size_gives_the_bits_of_the_spec(
    library: Path,
    session: Callable[..., Any],
    layer: Callable[..., Any],
    m: int, n: int, k: int, threads: int, seed: int,
) -> None:  # fmt: skip
    linear = layer(N=n, K=k)
    x = np.random.default_rng(seed).normal(0, 4, (m, k)).astype(np.float32)
    got = linear.run(session(linear.model(x), threads=threads), X=x)
    assert fault(library) is None
    np.testing.assert_array_equal(got.view(np.uint32), linear.expected(x).view(np.uint32))


def test_the_largest_sums_fit(library: Path, session: Callable[..., Any], layer: Callable[..., Any]) -> None:
    linear = layer(N=16, K=65536, act_min=-128.0, act_max=127.0, qmax=127.0)
    linear.inputs["W"][:] = 0  # codes 0: weights -1
    x = np.full((40, 65536), -1, np.float32)
    got = linear.run(session(linear.model(x)), X=x)
    assert fault(library) is None
    np.testing.assert_array_equal(got, linear.expected(x))
