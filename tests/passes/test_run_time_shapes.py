"""Scales that are given a shape: one that the file says, or one that is read when the model runs."""

from __future__ import annotations

import models
import pytest

from bitcc.facts import PACKED

EXPANDED = {
    "the shape of the input": "scale = Expand (s, sizes)",
    "two axes of it": "t = Shape <start = 0, end = 2> (a) d = Concat <axis = 0> (t, k) scale = Expand (s, d)",
    "the shape of what is quantised": "d = Shape (x) scale = Expand (s, d)",
}
SCALED = "r = Reciprocal (c) s = Mul (r, qmax) {} v = Mul (x, scale)"


@pytest.mark.parametrize("name", EXPANDED)
def test_a_scale_may_be_expanded_to(name: str) -> None:
    original = models.assemble(rows="batch, tokens", front="Softsign", scaled=SCALED.format(EXPANDED[name]))
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    packed = models.assert_same(original)
    assert models.op_types(packed)[-2:] == ["Softsign", "BitLinear"]
    x = models.tokens(2, 5)
    assert models.largest_difference(models.run(packed, x)[0], models.run(original, x)[0]) < 1e-5


def test_a_scale_may_be_expanded_to_a_shape_that_the_file_says() -> None:
    expanded = SCALED.format("scale = Expand (s, many)")
    original = models.assemble(rows="20, 30", scaled=expanded)
    assert models.pack(original)[1][0].activation == "int8_token"
    models.assert_same(original)


@pytest.mark.parametrize("rows", ["batch, tokens", "4, 4"])
def test_a_shape_with_its_axes_swapped_is_proven_by_none_but_equal_axes(rows: str) -> None:
    swapped = "d = Gather (sizes, swapped) scale = Expand (s, d)"
    original = models.assemble(rows=rows, front="Softsign", scaled=SCALED.format(swapped))
    (layer,) = models.pack(original)[1]
    assert layer.activation == ("int8_token" if rows == "4, 4" else "float")


def test_a_shape_with_unknown_axes_in_front_of_the_layer_proves_nothing() -> None:
    original = models.assemble(
        rows="batch, tokens", front="Softsign", scaled=SCALED.format("scale = Expand (s, sizes)")
    )
    shape = original.graph.input[0].type.tensor_type.shape
    for dim in shape.dim[:2]:
        dim.ClearField("dim_param")
    (layer,) = models.pack(original)[1]
    assert layer.activation == "float"
    assert "cannot be told apart" in layer.reason
    models.assert_same(original)


FLATTENED = """b = Abs (x) t = Shape <start = 0, end = {}> (b) d = Concat <axis = 0> (t, last)
  a = Reshape (b, d) m = ReduceMax <keepdims = 0> (a, last)"""


def test_magnitudes_may_be_flattened_to_the_tokens_that_they_have() -> None:
    """``flatten(2)`` of three axes: TorchScript writes a shape in which the columns are what is left."""
    original = models.assemble(
        rows="batch, 3",
        magnitude=FLATTENED.format(2),
        maximum="n = Unsqueeze (m, last)",
        bounded="c = Clip (n, eps)",
    )
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    packed = models.assert_same(original)
    assert models.op_types(packed) == ["BitLinear"]
    x = models.tokens(2, 3)
    assert models.largest_difference(models.run(packed, x)[0], models.run(original, x)[0]) < 1e-5


@pytest.mark.parametrize("rows", ["batch, 3", "2, 3"])
def test_magnitudes_of_several_tokens_are_flattened_to_one_number(rows: str) -> None:
    original = models.assemble(
        rows=rows,
        magnitude=FLATTENED.format(1),
        maximum="n = Unsqueeze (m, last) o = Unsqueeze (n, last)",
        bounded="c = Clip (o, eps)",
    )
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    assert "in another shape, whose rows are not known to be tokens" in layer.reason
    models.assert_same(original)
