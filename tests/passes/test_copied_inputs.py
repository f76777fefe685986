"""Layers whose own input is there more than once: computed again, or with its axes in another order."""

from __future__ import annotations

import models
import pytest

from bitcc.facts import PACKED, Numerics

K = models.K
SCALED = "r = Reciprocal (c) scale = Mul (r, qmax) v = Mul (h, scale)"
FIRST = "low0 = ReduceMin <keepdims = 0> (x) h = Sub (x, low0)"
WITH_NUMBER = "{n} = Constant <value = float {{{number}}}> () {h} = Mul (x, {n})"

COPIES = {
    "a difference": f"{FIRST} g = Sub (x, low0)",
    "and what is subtracted": f"{FIRST} low1 = ReduceMin <keepdims = 0> (x) g = Sub (x, low1)",
    "behind an Identity": f"{FIRST} i = Identity (x) low1 = ReduceMin <keepdims = 0> (i) g = Sub (i, low1)",
    "a product with constants of one content": WITH_NUMBER.format(n="n0", number=3, h="h")
    + WITH_NUMBER.format(n="n1", number=3, h="g"),
}


@pytest.mark.parametrize("front", COPIES.values(), ids=COPIES)
def test_they_are_computed_with_integer_kernels(front: str) -> None:
    original = models.assemble(magnitude=f"{front} a = Abs (g)", scaled=SCALED)
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    packed = models.assert_same(original)
    assert models.op_types(packed).count("BitLinear") == 1
    assert not {"Abs", "Round"} & set(models.op_types(packed))


def test_three_of_them_are_too() -> None:
    front = f"{FIRST} g = Sub (x, low0) e = Sub (x, low0) a = Abs (g)"
    residue = "d = Div (codes, scale) t = Sub (d, e) q = Add (e, t)"
    original = models.assemble(magnitude=front, scaled=SCALED, dequantised=residue)
    assert models.pack(original)[1][0].activation == "int8_token"
    models.assert_same(original)


OTHERS = {
    "of another number": WITH_NUMBER.format(n="n0", number=3, h="h")
    + WITH_NUMBER.format(n="n1", number=4, h="g"),
    "of another minimum": f"{FIRST} low1 = ReduceMin (x, last) g = Sub (x, low1)",
    "the other way round": f"{FIRST} g = Sub (low0, x)",
    "rounded": f"{FIRST} i = Cast <to = 10> (x) j = Cast <to = 1> (i) g = Sub (j, low0)",
}


@pytest.mark.parametrize("front", OTHERS.values(), ids=OTHERS)
def test_what_is_computed_in_another_way_keeps_the_quantizer(front: str) -> None:
    original = models.assemble(magnitude=f"{front} a = Abs (g)", scaled=SCALED)
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    assert layer.fix
    models.assert_same(original)


def test_what_is_drawn_at_random_is_no_copy() -> None:
    front = "o = RandomNormalLike (x) h = Add (x, o) p = RandomNormalLike (x) g = Add (x, p) a = Abs (g)"
    (layer,) = models.pack(models.assemble(magnitude=front, scaled=SCALED))[1]
    assert (layer.status, layer.activation) == (PACKED, "float")


MOVED = "h = Transpose <perm = [1, 0, 2]> (x) a = Abs (x)"
BACK = "z = MatMul (q, w) y = Transpose <perm = [1, 0, 2]> (z)"
MAXIMUM = "t = ReduceMax <keepdims = 0> (a, last) g = Transpose <perm = [1, 0]> (t) m = Unsqueeze (g, last)"
TRANSPOSED = {
    "maxima that are transposed": {"magnitude": MOVED, "maximum": MAXIMUM, "product": BACK},
    "maxima of as many axes": {
        "magnitude": MOVED,
        "maximum": "t = ReduceMax (a, last) m = Transpose <perm = [1, 0, 2]> (t)",
        "product": BACK,
    },
    "as many tokens in each axis": {"rows": "3, 3", "magnitude": MOVED, "maximum": MAXIMUM},
    "columns in front of tokens": {
        "rows": f"2, {K}",
        "magnitude": "h = Transpose <perm = [0, 2, 1]> (x) a = Abs (x)",
        "maximum": "t = ReduceMax (a, k) m = Transpose <perm = [0, 2, 1]> (t)",
    },
}


@pytest.mark.parametrize("parts", TRANSPOSED.values(), ids=TRANSPOSED)
def test_maxima_of_what_is_transposed_afterwards_are_those_of_its_tokens(parts: dict[str, str]) -> None:
    original = models.assemble(**{"scaled": SCALED, **parts})
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    packed = models.assert_same(original)
    assert set(models.op_types(packed)) == {"BitLinear", "Transpose"}


NOT_TRANSPOSED = {
    "maxima of other tokens": "m = ReduceMax (a, last)",
    "maxima of other tokens, transposed twice": "t = ReduceMax (a, last) "
    "g = Transpose <perm = [1, 0, 2]> (t) m = Transpose <perm = [1, 0, 2]> (g)",
    "maxima of other tokens, in another shape": f"""tokens = Constant <value = int64[2] {{9, {K}}}> ()
      back = Constant <value = int64[3] {{3, 3, 1}}> () b = Reshape (a, tokens) t = ReduceMax (b, last)
      m = Reshape (t, back)""",
}


@pytest.mark.parametrize("maximum", NOT_TRANSPOSED.values(), ids=NOT_TRANSPOSED)
def test_maxima_in_another_order_than_their_tokens_keep_the_quantizer(maximum: str) -> None:
    original = models.assemble(rows="3, 3", magnitude=MOVED, maximum=maximum, scaled=SCALED)
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    assert layer.fix
    models.assert_same(original)


IN_HALF = {
    "computed again": {
        "convert_element_type_default = Cast <to = 1> (x)": "h = Neg (x) g = Neg (x) "
        "convert_element_type_default = Cast <to = 1> (g)"
    },
    "transposed": {
        "abs_1 = Abs": "h = Transpose <perm = [1, 0, 2]> (x) abs_1 = Abs",
        "clamp = Max (getitem": "moved = Transpose <perm = [1, 0, 2]> (getitem) clamp = Max (moved",
    },
}
READ = {"Mul (x, mul)": "Mul (h, mul)", "Sub (div, x)": "Sub (div, h)", "Add (x, sub)": "Add (h, sub)"}


@pytest.mark.parametrize("half", models.HALVES)
@pytest.mark.parametrize("replace", IN_HALF.values(), ids=IN_HALF)
def test_in_half_precision_the_codes_are_those_of_the_original(half: str, replace: dict[str, str]) -> None:
    model = models.build("half_bias", half=half, rows="3, 3", replace={**replace, **READ})
    layer, _ = models.pack(model, numerics=Numerics.FAITHFUL)[1]
    assert (layer.status, layer.activation, layer.numerics) == (PACKED, "int8_token", "faithful")
