"""The largest magnitude of a token, sorted, taken in parts, and beside the negatives."""

from __future__ import annotations

import models
import pytest

from bitcc.facts import PACKED

K = models.K


def constant(name: str, *numbers: int) -> str:
    """A node of int64 numbers."""
    return f"{name} = Constant <value = int64[{len(numbers)}] {{{', '.join(map(str, numbers))}}}> ()"


FIVE, ALL, END, FIFTY = (constant(*c) for c in (("five", 5), ("all", K), ("end", -1), ("half", 50, 50)))
FIRST = "m = Slice (t, first, k, last)"
LAST = f"{END} m = Slice (t, end, beyond, last)"
SIZE = "d = Shape (a) e = Gather (d, last)"
NUMBER = "o = Constant <value = int64 {0}> ()"
BESIDE = "n = Neg (x) a = Concat <axis = -1> (x, n)"
ENDS = "upper = ReduceMax (x, last) lower = ReduceMin (x, last)"
PARTS = f"{FIFTY} p, q1 = Split <axis = -1> (x, half) a1 = Abs (p) a2 = Abs (q1)"
HEADS = constant("heads", 0, 0, 4, 25)
TOKENS = constant("tokens", 6, K)
BACK = constant("back", 2, 3, 1)

SPELLED = {
    "the first of the largest ones": {"maximum": f"{FIVE} t, i = TopK (a, five) {FIRST}"},
    "the first of the largest ones, gathered": {
        "maximum": f"""{FIVE} {NUMBER} t, i = TopK (a, five) g = Gather <axis = 2> (t, o)
          m = Unsqueeze (g, last)"""
    },
    "the first of the largest ones, split": {
        "maximum": "two_ = Constant <value = int64[1] {2}> () t, i = TopK (a, two_) "
        "m, rest = Split <axis = -1, num_outputs = 2> (t)"
    },
    "the first of the largest ones, in a sequence": {
        "maximum": f"""{FIVE} {NUMBER} l = Constant <value = int64 {{2}}> () t, i = TopK (a, five)
          parts = SplitToSequence <axis = -1> (t, l) g = SequenceAt (parts, o) m = ReduceMax (g, last)"""
    },
    "sorted down": {"maximum": f"{ALL} t, i = TopK (a, all) {FIRST}"},
    "sorted up": {"maximum": f"{ALL} t, i = TopK <largest = 0> (a, all) {LAST}"},
    "sorted down, as many as there are": {"maximum": f"{SIZE} t, i = TopK (a, e) {FIRST}"},
    "sorted up, as many as there are": {"maximum": f"{SIZE} t, i = TopK <largest = 0> (a, e) {LAST}"},
    "the smallest of the negatives, which is first": {
        "magnitude": "b = Abs (x) a = Neg (b)",
        "maximum": f"{FIVE} t, i = TopK <largest = 0> (a, five) s0 = Slice (t, first, k, last) m = Neg (s0)",
    },
    "beside the negatives": {"magnitude": BESIDE},
    "the negatives as another axis": {
        "magnitude": """n = Neg (x) b = Unsqueeze (x, first) d = Unsqueeze (n, first)
          a = Concat <axis = 0> (b, d)""",
        "maximum": "g = ReduceMax <keepdims = 0> (a, first) m = ReduceMax (g, last)",
    },
    "both ends beside each other": {
        "magnitude": f"{ENDS} n = Neg (lower) a = Concat <axis = -1> (upper, n)",
    },
    "magnitudes of both ends beside each other": {
        "magnitude": f"{ENDS} b = Concat <axis = -1> (upper, lower) a = Abs (b)",
    },
    "both ends of what is sorted": {
        "magnitude": f"{ALL} {END} t, i = TopK (x, all) upper = Slice (t, first, k, last) "
        "lower = Slice (t, end, beyond, last) n = Neg (lower)",
        "maximum": "m = Max (upper, n)",
    },
    "the floor beside the magnitudes": {
        "magnitude": "b = Abs (x) a = Concat <axis = -1> (b, filled)",
        "bounded": "c = Identity (m)",
    },
    "two parts": {
        "magnitude": PARTS,
        "maximum": "b1 = ReduceMax (a1, last) b2 = ReduceMax (a2, last) m = Max (b1, b2)",
    },
    "two parts, beside each other": {
        "magnitude": f"{PARTS} a = Concat <axis = -1> (a2, a1)",
    },
    "two slices": {
        "magnitude": """p = Slice (x, first, fifty, last) h1 = Slice (x, fifty, beyond, last)
          a1 = Abs (p) a2 = Abs (h1) a = Max (a2, a1)"""
    },
    "heads, one after the other": {
        "magnitude": f"{HEADS} b = Reshape (x, heads) a = Abs (b)",
        "maximum": "t = ReduceMax <keepdims = 0> (a, last) m = ReduceMax (t, last)",
    },
    "heads, the tokens of which are behind them": {
        "magnitude": f"""{HEADS} b = Reshape (x, heads) d = Transpose <perm = [2, 0, 1, 3]> (b) a = Abs (d)
          {constant("ends", 0, 3)}""",
        "maximum": "t = ReduceMax <keepdims = 0> (a, ends) m = Unsqueeze (t, last)",
    },
    "heads, all at once": {
        "magnitude": f"{HEADS} b = Reshape (x, heads) a = Abs (b) {constant('both', -1, -2)}",
        "maximum": "t = ReduceMax <keepdims = 0> (a, both) m = Unsqueeze (t, last)",
    },
    "a pool over all columns": {"maximum": f"m = MaxPool <kernel_shape = [{K}]> (a)"},
    "tokens in one axis": {
        "magnitude": f"{TOKENS} {BACK} {ALL} b = Abs (x) a = Reshape (b, tokens) t, i = TopK (a, all)",
        "maximum": "g = Slice (t, first, k, last) m = Reshape (g, back)",
    },
    "sorted, and an epsilon": {
        "maximum": f"{FIVE} t, i = TopK (a, five) {FIRST}",
        "bounded": "c = Add (m, eps)",
    },
    "sorted, and something else for zero": {
        "maximum": f"{FIVE} t, i = TopK (a, five) {FIRST}",
        "bounded": "g = Equal (m, zero) c = Where (g, one, m)",
    },
    "two floors of what is sorted": {
        "maximum": f"{FIVE} t, i = TopK (a, five) {FIRST}",
        "bounded": "n = Max (m, eps) c = Max (n, column)",
    },
}


@pytest.mark.parametrize("name", SPELLED)
def test_it_is_computed_with_integer_kernels(name: str) -> None:
    original = models.assemble(**SPELLED[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.reason) == (PACKED, "int8_token", "")
    assert models.op_types(models.assert_same(original)) == ["BitLinear"]


OTHERS = {
    "the second of the largest ones": {
        "maximum": f"{FIVE} {constant('third', 2)} t, i = TopK (a, five) m = Slice (t, k, third, last)"
    },
    "the last of the largest ones": {"maximum": f"{FIVE} t, i = TopK (a, five) {LAST}"},
    "the first of the smallest ones": {"maximum": f"{FIVE} t, i = TopK <largest = 0> (a, five) {FIRST}"},
    "the last of five of the smallest ones": {
        "maximum": f"{FIVE} t, i = TopK <largest = 0> (a, five) {LAST}"
    },
    "the last of all, falling": {"maximum": f"{ALL} t, i = TopK (a, all) {LAST}"},
    "the first of those in any order": {"maximum": f"{FIVE} t, i = TopK <sorted = 0> (a, five) {FIRST}"},
    "where the largest one is": {"maximum": f"{FIVE} t0, i = TopK (a, five) t = Cast <to = 1> (i) {FIRST}"},
    "the largest values alone": {"maximum": f"{FIVE} t, i = TopK (x, five) {FIRST}"},
    "beside themselves": {"magnitude": "a = Concat <axis = -1> (x, x)"},
    "beside the negatives of half": {
        "magnitude": "p = Slice (x, first, fifty, last) n = Neg (p) a = Concat <axis = -1> (x, n)"
    },
    "the second part of a sequence": {
        "maximum": f"""{FIVE} n = Constant <value = int64 {{1}}> () l = Constant <value = int64 {{2}}> ()
          t, i = TopK (a, five) parts = SplitToSequence <axis = -1> (t, l) g = SequenceAt (parts, n)
          m = ReduceMax (g, last)"""
    },
    "the smaller of two parts": {
        "magnitude": PARTS,
        "maximum": "b1 = ReduceMax (a1, last) b2 = ReduceMax (a2, last) m = Min (b1, b2)",
    },
    "one part twice": {
        "magnitude": PARTS,
        "maximum": "b1 = ReduceMax (a1, last) b2 = ReduceMax (a1, last) m = Max (b1, b2)",
    },
    "two slices with a gap": {
        "magnitude": f"""{constant("late", 51)} p = Slice (x, first, fifty, last)
          h1 = Slice (x, late, beyond, last) a1 = Abs (p) a2 = Abs (h1)""",
        "maximum": "b1 = ReduceMax (a1, last) b2 = ReduceMax (a2, last) m = Max (b1, b2)",
    },
    "every second one": {
        "magnitude": f"{constant('step', 2)} b = Abs (x) a = Slice (b, first, beyond, last, step)"
    },
    "a floor that is no constant": {
        "magnitude": "b = Abs (x) d = ReduceMean (b, last) a = Concat <axis = -1> (b, d)",
    },
    "an upper bound of what is sorted": {
        "maximum": f"{FIVE} b = Min (a, qmax) t, i = TopK (b, five) {FIRST}"
    },
    "an epsilon and a floor of what is sorted": {
        "magnitude": "b = Abs (x) a = Max (b, eps)",
        "maximum": f"{FIVE} t, i = TopK (a, five) {FIRST}",
        "bounded": "c = Add (m, column)",
    },
    "two floors that are not both there": {
        "magnitude": "b = Abs (x) d = Max (b, column) a = Min (b, d)",
    },
    "the average of a pool": {"maximum": f"m = AveragePool <kernel_shape = [{K}]> (a)"},
    "a pool over half the columns": {
        "magnitude": "b = Abs (x) a = MaxPool <kernel_shape = [50], strides = [50]> (b)",
        "maximum": "m = ReduceMin (a, last)",
    },
    "a pool around each column": {
        "magnitude": f'b = Abs (x) a = MaxPool <kernel_shape = [{K}], auto_pad = "SAME_UPPER"> (b)',
        "maximum": "m = ReduceMin (a, last)",
    },
    "heads, and the smallest of them": {
        "magnitude": f"{HEADS} b = Reshape (x, heads) a = Abs (b)",
        "maximum": "t = ReduceMax <keepdims = 0> (a, last) m = ReduceMin (t, last)",
    },
    "sorted tokens": {
        "magnitude": "b = Abs (x) a, i = TopK <axis = 1> (b, k)",
        "maximum": "m = ReduceMax (a, last)",
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_another_number_keeps_its_quantizer(name: str) -> None:
    original = models.assemble(**OTHERS[name])
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "float")
    models.assert_same(original)


def test_an_axis_in_front_of_the_tokens_is_none_of_the_columns() -> None:
    """As many tokens as columns: the shapes fit, and the maximum of a token would scale a column."""
    sort = f"{ALL} t, i = TopK (a, all) g = Gather <axis = 1> (t, o) m = Unsqueeze (g, first)"
    original = models.assemble(rows=str(K), maximum=f"{NUMBER} {sort}")
    assert models.pack(original)[1][0].activation == "float"
    models.assert_same(original)


def test_tokens_in_another_order_are_not_those_that_are_quantised() -> None:
    moved = f"{ALL} p = Transpose <perm = [1, 0, 2]> (x) a = Abs (p) t, i = TopK (a, all) {FIRST}"
    original = models.assemble(rows="3, 3", magnitude=moved, maximum="")
    assert models.pack(original)[1][0].activation == "float"
    models.assert_same(original)
