"""The conversions of half.h against numpy and ml_dtypes: every half, and floats around every edge."""

from __future__ import annotations

import ctypes
import subprocess
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from bitcc import runtime_ops

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
#include "half.h"
#define LOOP(name, to, from) \\
  void name(to *out, const from *in, int n) { for (int i = 0; i < n; i++) out[i] = bitcc_##name(in[i]); }
LOOP(from_half, float, uint16_t)
LOOP(to_half, uint16_t, float)
LOOP(from_bfloat16, float, uint16_t)
LOOP(to_bfloat16, uint16_t, float)
"""
NAMES = pytest.mark.parametrize(("name", "element"), [("half", np.float16), ("bfloat16", ml_dtypes.bfloat16)])


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    out = tmp_path_factory.mktemp("half") / "half.so"
    folder: Path = runtime_ops.include_dir().parent / "src"
    command = ["cc", "-std=c11", "-O3", "-fPIC", "-shared", f"-I{folder}", "-xc", "-", "-o", str(out)]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return ctypes.CDLL(str(out))


def convert(function: Any, source: np.ndarray[Any, Any], element: Any) -> np.ndarray[Any, Any]:
    out = np.empty(source.shape, element)
    function(ctypes.c_void_p(out.ctypes.data), ctypes.c_void_p(source.ctypes.data), source.size)
    return out


@NAMES
def test_every_half_becomes_its_float(loops: ctypes.CDLL, name: str, element: Any) -> None:
    halves = np.arange(65536, dtype=np.uint16)
    got = convert(getattr(loops, f"from_{name}"), halves, np.float32)
    with np.errstate(invalid="ignore"):
        expected = halves.view(element).astype(np.float32)
    np.testing.assert_array_equal(got, expected)  # NaN equals NaN here
    np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))


@NAMES
def test_floats_are_rounded_to_the_nearest_half(loops: ctypes.CDLL, name: str, element: Any) -> None:
    with np.errstate(all="ignore"):
        exact = np.arange(65536, dtype=np.uint16).view(element).astype(np.float32)
        exact = exact[np.isfinite(exact)]
        middle = (exact + np.nextafter(exact.astype(element), np.inf).astype(np.float32)) / 2
        edges = np.concatenate([exact, middle])
        around = [np.nextafter(edges, np.float32(side)) for side in (-np.inf, np.inf)]
        bits = np.random.default_rng(3).integers(0, 2**32, 2_000_000, dtype=np.uint32)
        floats = np.concatenate([edges, *around, bits.view(np.float32)]).astype(np.float32)
        expected = floats.astype(element)
    got = convert(getattr(loops, f"to_{name}"), floats, np.uint16).view(element)
    nan = np.isnan(floats)
    np.testing.assert_array_equal(np.isnan(got.astype(np.float32)), nan)
    np.testing.assert_array_equal(got[~nan].view(np.uint16), expected[~nan].view(np.uint16))
