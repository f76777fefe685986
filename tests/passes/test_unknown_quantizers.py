"""A quantizer that the op does not compute stays in front of a layer with float activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import pytest

from bitcc.facts import PACKED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

SPELLED: Mapping[str, tuple[str, Mapping[str, str], str]] = {
    "float activations": ("dynamo", {"MatMul (add_68,": "MatMul (x,"}, models.NO_QUANTIZER),
    "no Round": ("dynamo", {"round_1 = Round": "round_1 = Identity"}, models.NO_QUANTIZER),
    "signs": (
        "dynamo",
        {"add_68 = Add (x, sub_24)": "add_68 = Sign (x)"},
        "its activations are signs, made by `add_68`, and no int8 codes",
    ),
    "signs with a straight-through residue": (
        "dynamo",
        {"add_68 = Add (x, sub_24)": "s = Sign (x) rest = Sub (s, x) add_68 = Add (x, rest)"},
        "its activations are signs, made by `s`, and no int8 codes",
    ),
    "signs of what has another size": (
        "dynamo",
        {"add_68 = Add (x, sub_24)": "s = Sign (x) root = Sqrt (abs_1) add_68 = Mul (s, root)"},
        models.NO_QUANTIZER,
    ),
    "codes without Round": (
        "codes_after",
        {"round_1 = Round": "round_1 = Floor"},
        "its activations are rounded by `round_1` (Floor), and not to the nearest even number",
    ),
    "codes that only half of the columns have": (
        "dynamo",
        {
            "MatMul (add_68,": "MatMul (some,",
            "add_68 = Add (x, sub_24)": "add_68 = Add (x, sub_24) "
            "half = Slice (add_68, zeros, fifty, lasts) rest = Slice (x, fifty, hundred, lasts) "
            "some = Concat <axis = -1> (half, rest)",
            "int64[1] val_2 = {-1}": "int64[1] val_2 = {-1}, int64[1] zeros = {0}, int64[1] fifty = {50}, "
            "int64[1] hundred = {100}, int64[1] lasts = {-1}",
        },
        "is changed in front of the product by more than one scale for each token",
    ),
    "absmax over no axis": (
        "dynamo",
        {"noop_with_empty_axes = 0, keepdims = 1> (abs_1, val_2)": "noop_with_empty_axes = 1> (abs_1)"},
        "the absolute maximum is taken over no axis",
    ),
    "absmax over an axis that is computed": (
        "dynamo",
        {
            "abs_1 = Abs (x)": "rows = Shape <start = 0, end = 1> (x) one = Sign (rows)"
            " computed = Neg (one) abs_1 = Abs (x)",
            "(abs_1, val_2)": "(abs_1, computed)",
        },
        "the axis of the absolute maximum is not constant",
    ),
    "absmax over tokens": (
        "dynamo",
        {"val_2 = {-1}": "val_2 = {-2}"},
        "is taken over axes [-2], neither over the last axis nor over all",
    ),
    "absmax over two axes": (
        "dynamo",
        {"int64[1] val_2 = {-1}": "int64[2] val_2 = {1, -1}"},
        "over axes [1, -1]",
    ),
    "absmax with an upper bound": (
        "dynamo",
        {"Clip (getitem, val_4)": "Clip (getitem, val_4, round_1_max)"},
        "the absolute maximum of the activations has an upper bound",
    ),
    "absmax with an upper bound behind a floor": (
        "dynamo",
        {
            "clamp = Clip (getitem, val_4)": "bounded = Clip (getitem, val_4, round_1_max) "
            "clamp = Max (bounded, val_4)"
        },
        "the absolute maximum of the activations has an upper bound",
    ),
    "maximum without Abs": (
        "dynamo",
        {"abs_1 = Abs (x)": "abs_1 = Identity (x)"},
        "the activation scale is not computed from the input's absolute maximum",
    ),
    "absmax of something else": (
        "dynamo",
        {"abs_1 = Abs (x)": "twice = Add (x, x) abs_1 = Abs (twice)"},
        "the activation scale is not computed from the input's absolute maximum",
    ),
    "scale that is fixed": (
        "dynamo",
        {"reciprocal = Reciprocal (clamp)": "reciprocal = Reciprocal (val_4)"},
        "the scale of its activation quantizer is fixed",
    ),
    "scale of unknown form": (
        "dynamo",
        {"reciprocal = Reciprocal (clamp)": "reciprocal = Sqrt (clamp)"},
        "the activation scale has no known form",
    ),
    "negative epsilon": (
        "divide_row_scale",
        {"eps = {1e-6}": "eps = {-1e-6}"},
        "the epsilon of the activation scale is negative (-1e-06)",
    ),
    "nine bits": (
        "dynamo",
        {"round_1_min = {-128}": "round_1_min = {-256}", "round_1_max = {127}": "round_1_max = {255}"},
        "the activation codes, clamp(x * 255 / max, -256, 255), are not int8",
    ),
    "bounds between integers": ("dynamo", {"round_1_min = {-128}": "round_1_min = {-127.5}"}, "are not int8"),
    "no upper bound of 128": (
        "dynamo",
        {"round_1_max = {127}": "round_1_max = {128}", "round_1_min, round_1_max)": "round_1_min)"},
        "clamp(x * 128 / max, -128, inf), are not int8",
    ),
    "one scale in, another out": (
        "dynamo",
        {"div = Div (clamp_1, mul_38)": "other = Mul (mul_38, mul_38) div = Div (clamp_1, other)"},
        "dequantised by another scale than they were quantised by",
    ),
    "one scale in, multiplied out": (
        "hf_online",
        {"div_1 = Div (clamp_3, mul_40)": "div_1 = Mul (clamp_3, mul_40)"},
        "dequantised by another scale than they were quantised by",
    ),
    "scale never divided out": (
        "codes_after",
        {"div_1 = Div (linear, mul_155)": "div_1 = Identity (linear)"},
        "the product of codes is not divided by the activation scale",
    ),
    "scale divided out twice": (
        "codes_after",
        {"mul_155 = Mul (reciprocal_3, mul_41)": "mul_155 = Mul (mul_41, mul_41)"},
        "scaled by something else than the activation scale",
    ),
    "scale multiplied again": (
        "codes_after",
        {"div_1 = Div (linear, mul_155)": "div_1 = Mul (linear, mul_155)"},
        "scaled by something else than the activation scale",
    ),
    "a scale that something is added to": (
        "codes_after",
        {"div_1 = Div (linear, mul_155)": "more = Add (mul_155, mul_41) div_1 = Div (linear, more)"},
        "scaled by something else than the activation scale",
    ),
    "product seen outside": (
        "codes_after",
        {"[$rows, 20] y)": "[$rows, 20] y, float[$rows, 60] linear)"},
        "the product of codes is not divided by the activation scale",
    ),
}


@pytest.mark.parametrize("name", SPELLED)
def test_it_is_packed_with_float_activations(name: str) -> None:
    spelling, replace, reason = SPELLED[name]
    model = models.build(spelling, rows=models.SPELLINGS[spelling].rows[0], replace=replace)
    _, (layer, _) = models.pack(model)
    assert (layer.status, layer.activation) == (PACKED, "float")
    assert layer.reason.startswith("activations stay float: ")
    assert reason in layer.reason
    assert layer.fix
    assert_computes_the_same(model)


def assert_computes_the_same(model: onnx.ModelProto) -> None:
    """The layer reads what the product read, whose quantizer nobody touched."""
    (node,) = models.bit_linears(models.assert_same(model))
    (product,) = (n for n in model.graph.node if n.name == node.name)
    assert (node.op_type, node.input[0]) == ("TernaryLinear", product.input[0])


def test_a_scale_that_drops_the_last_axis() -> None:
    model = models.build("dynamo", rows="100", replace={"keepdims = 1> (abs_1": "keepdims = 0> (abs_1"})
    assert "the absolute maximum drops the last axis" in models.pack(model)[1][0].reason
    assert_computes_the_same(model)


def test_a_bound_that_the_caller_can_override() -> None:
    model = models.build(
        "dynamo",
        replace={
            "100] x)": "100] x, float bound)",
            "clamp_1 = Clip (round_1, round_1_min": "clamp_1 = Clip (round_1, bound",
        },
    )
    model.graph.initializer.append(models.initializer("bound", np.float32(-128)))
    assert "what `round_1` (Round) rounds is changed" in models.pack(model)[1][0].reason
    packed = models.pack(model)[0]
    x, bound = models.tokens(3, 3), np.array(-20, np.float32)
    (got,), (want,) = (models.run(m, x, bound=bound) for m in (packed, model))
    assert models.largest_difference(got, want) < 1e-5


def test_what_the_layer_reads_can_be_seen_outside() -> None:
    model = models.build(
        "codes_after",
        replace={
            "div_1 = Div (linear, mul_155)": "div_1 = Identity (linear)",
            "[$rows, 20] y)": "[$rows, 20] y, float[$rows, 100] add_60)",
        },
    )
    assert_computes_the_same(model)
