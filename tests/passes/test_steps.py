"""Codes of float32 weights by comparing them with two numbers are those of the quantizer's nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitcc.passes.constants import Constants
from bitcc.passes.steps import Steps, steps_of
from bitcc.passes.table import NO_CODE

if TYPE_CHECKING:
    from bitcc.passes.elementwise import Elementwise

Floats = NDArray[np.float32]

SHAPE = (128, 256)
RISING = {
    "absmean": "v = Mul (w, half) q = Round (v) c = Clip (q, low, high) z = Div (c, half)",
    "a threshold": "v = Sub (w, half) u = Add (half, v) q = Sign (u) z = Mul (half, q)",
    "in half precision": """h = Cast <to = 10> (w) v = Cast <to = 1> (h) q = Round (v)
       z = Clip (q, low, high)""",
}
OTHERS = {
    "a residue": "q = Round (w) c = Clip (q, low, high) d = Sub (c, w) z = Add (w, d)",
    "magnitudes": "a = Abs (w) q = Round (a) z = Clip (q, low, high)",
    "a negative scale": "v = Mul (w, low) q = Round (v) z = Clip (q, low, high)",
    "a difference": "v = Sub (half, w) q = Round (v) z = Clip (q, low, high)",
    "a reciprocal": "v = Div (half, w) q = Round (v) z = Clip (q, low, high)",
    "a square": "v = Mul (w, w) q = Round (v) z = Clip (q, low, high)",
    "a scale of each row": "m = ReduceMean (w, last) v = Add (w, m) q = Round (v) z = Clip (q, low, high)",
    "infinity": "v = Mul (w, many) q = Round (v) z = Clip (q, low, high)",
    "few nodes": "q = Round (w) z = Clip (q, low, high)",
    "another level": "v = Mul (w, half) q = Round (v) c = Clip (q, low, high) z = Mul (c, half)",
    "a slope": "v = Mul (w, half) c = Clip (v, low, high) z = Mul (c, high)",
}


def content_of(body: str, weights: Floats) -> Elementwise:
    values = {"low": -1, "high": 1, "half": 0.5, "four": 4, "many": np.inf}
    proto = models.parse(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        main_graph (float x) => (float[128, 256] z) <int64[1] last = {{-1}}> {{ {body} }}""",
        {"w": weights, **{name: np.array(value, np.float32) for name, value in values.items()}},
    )
    model = ir.from_proto(proto)
    return Constants(model).elementwise(model.graph.outputs[0])


def codes_of(values: Floats, level: float = 1) -> NDArray[np.int8]:
    codes = np.full(values.shape, NO_CODE, np.int8)
    for code in (-1, 0, 1):
        codes[values == code * level] = code
    return codes


LEVELS = {"absmean": 2.0, "a threshold": 0.5, "in half precision": 1.0}


def found(name: str, weights: Floats) -> Steps | None:
    read = steps_of(content_of(RISING[name], weights), lambda values: codes_of(values, LEVELS[name]))
    return None if read is None else read[1]


@pytest.mark.parametrize("name", RISING)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_number_has_the_code_that_the_nodes_give_it(name: str, seed: int) -> None:
    """Numbers of any size, those beside the steps among them."""
    bits = np.random.default_rng(seed).integers(0, 1 << 32, SHAPE, np.uint64).astype(np.uint32)
    numbers = bits.view(np.float32)
    steps = found(name, np.where(np.abs(numbers) < 3e38, numbers, 0).astype(np.float32))
    assert steps is not None
    for step in (steps.zero, steps.one):
        below = np.nextafter(step, np.float32(-np.inf))
        numbers[0, :5] = [step, below, -step, -below, 0]
    weights = np.where((numbers >= steps.lowest) & (numbers <= steps.highest), numbers, 0).astype(np.float32)
    out = np.empty(SHAPE, np.int8)
    assert steps.read(weights, out)
    content = content_of(RISING[name], weights)
    np.testing.assert_array_equal(out, codes_of(content.whole(), LEVELS[name]))


@pytest.mark.parametrize("name", RISING)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_has_no_code(name: str, number: float) -> None:
    steps = found(name, np.linspace(-3, 3, 128 * 256, dtype=np.float32).reshape(SHAPE))
    assert steps is not None
    weights = np.zeros((4, 4), np.float32)
    out = np.empty((4, 4), np.int8)
    assert steps.read(weights, out)
    weights[2, 1] = number
    assert not steps.read(weights, out)


@pytest.mark.parametrize("name", OTHERS)
def test_what_may_fall_or_has_other_levels_is_evaluated(name: str) -> None:
    weights = np.linspace(-3, 3, 128 * 256, dtype=np.float32).reshape(SHAPE)
    assert steps_of(content_of(OTHERS[name], weights), codes_of) is None


def test_numbers_beyond_the_levels_have_no_code() -> None:
    body = "v = Mul (w, half) q = Round (v) z = Clip (q, low, four)"
    weights = np.linspace(-2.9, 2.9, 128 * 256, dtype=np.float32).reshape(SHAPE)
    read = steps_of(content_of(body, weights), codes_of)
    assert read is not None
    numbers, steps = read
    out = np.empty(SHAPE, np.int8)
    assert steps.read(numbers, out)
    higher = numbers.copy()
    higher[7, 9] = 3.1
    assert not steps.read(higher, out)
