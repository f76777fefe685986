"""Products that look like those of another layout and are none, or that packing would not gain by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import pytest
from models.layouts import EINSUM, FRONTS, HEADER, Case, arrays, build, facts

from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    import onnx

FLOAT = {  # packed, but not with the int8 codes of a quantizer that is another's
    "left, a maximum over the tokens": Case("100, 7", "60, 7", 1, "y = MatMul (rows, q)"),
    "right, a maximum over the tokens": Case("7, 100", "7, 60", 0, "y = MatMul (q, columns)"),
    "square, transposed behind the quantizer": Case(
        "100, 100", "60, 100", 0, "t = Transpose (q) y = MatMul (rows, t)"
    ),
}


@pytest.mark.parametrize("name", FLOAT)
def test_a_maximum_over_another_axis_is_not_the_scale_of_a_token(name: str) -> None:
    model = build(FLOAT[name], "int8")
    status, activation, reason = facts(model)
    assert (status, activation) == (PACKED, "float")
    assert "the absolute maximum is taken over axes" in reason
    models.assert_same(model)


def test_a_scale_that_meets_the_outputs_is_not_divided_out() -> None:
    """As many tokens as outputs: the shapes fit, and the scale of a token divides an output."""
    case = Case("60, 100", "60, 60", 1, "t = Transpose (q) y = MatMul (rows, t)")
    model = build(case, "codes")
    assert facts(model)[:2] == (PACKED, "float")
    models.assert_same(model)


NOT_THE_LAYERS = {
    "a bias of the tokens": Case("100, 60", "60, 60", 0, "p = MatMul (rows, q) y = Add (p, bias)"),
    "a norm over the tokens": Case(
        "2, 60, 100",
        "2, 60, 60",
        2,
        "p = MatMul (q, columns) y = BatchNormalization (p, gain, bias, gain, gain)",
    ),
    "another transpose": Case(
        "2, 7, 100", "60, 2, 7", 2, "p = MatMul (q, columns) y = Transpose <perm = [2, 0, 1]> (p)"
    ),
}


@pytest.mark.parametrize("name", NOT_THE_LAYERS)
def test_what_follows_along_another_axis_stays_behind_the_layer(name: str) -> None:
    model = build(NOT_THE_LAYERS[name], "int8")
    last = model.graph.node[-1].op_type
    assert models.op_types(models.assert_same(model))[-1] == last


CONVOLUTION = "only matrix products and 1x1 convolutions are packed"


EQUATION = "is not a matrix product over one axis"


REFUSED = {
    "a convolution with strides": (
        Case("2, 100, 5, 3", "2, 60, 3, 2", 1, "y = Conv <strides = [2, 2]> (q, filters)"),
        CONVOLUTION,
    ),
    "a convolution with padding": (
        Case("2, 100, 5", "2, 60, 6", 1, "y = Conv <pads = [0, 1]> (q, filters_1d)"),
        CONVOLUTION,
    ),
    "a convolution of groups": (
        Case("2, 200, 5", "2, 60, 5", 1, "y = Conv <group = 2> (q, filters_1d)"),
        CONVOLUTION,
    ),
    "an equation that sums a token axis": (
        Case("2, 7, 100", "2, 60", 2, EINSUM.format("bsk,kn->bn", "columns")),
        EQUATION,
    ),
    "an equation that multiplies": (
        Case("7, 100", "7, 100, 60", 1, EINSUM.format("sk,kn->skn", "columns")),
        EQUATION,
    ),
    "an equation of a diagonal": (
        Case("7, 100, 100", "7, 60", 2, EINSUM.format("skk,kn->sn", "columns")),
        EQUATION,
    ),
    "integers": (
        Case(
            "2, 7, 100",
            "2, 7, 60",
            2,
            """s = Cast <to = 3> (q) t = Cast <to = 3> (codes) i = MatMulInteger (s, t)
            y = Cast <to = 1> (i)""",
        ),
        "it multiplies integers",
    ),
    "heads of an input over channels": (
        Case("2, 100, 7", "2, 4, 7, 15", 1, EINSUM.format("bds,dhk->bhsk", "heads")),
        "sums over an axis in front of its tokens",
    ),
    "a weight whose inputs are between its outputs": (
        Case("2, 7, 100", "2, 7, 4, 15", 2, EINSUM.format("bsd,hdk->bshk", "heads_first")),
        "sums over a middle axis of its weight",
    ),
    "heads on both sides": (
        Case("2, 7, 4, 15", "2, 7, 100", 3, EINSUM.format("bshk,dhk->bsd", "rows_of_inputs")),
        EQUATION,
    ),
    "one column that an equation broadcasts": (
        Case(
            "2, 7, 100",
            "2, 7, 60",
            2,
            "r = ReduceMax (q, axis) " + EINSUM.format("bsk,kn->bsn", "columns").replace("(q", "(r"),
        ),
        "its input has 1 columns, the weight 100",
    ),
    "a batch axis that the input does not have": (
        Case("7, 100", "1, 7, 60", 1, "y = MatMul (q, batched)"),
        "its weight has more axes than its input is known to have",
    ),
    "a weight that an equation repeats for a batch that the input does not have": (
        Case(
            "1, 7, 100",
            "3, 7, 60",
            2,
            "u = Unsqueeze (columns, zero_one) w = Expand (u, copies_for_three) "
            + EINSUM.format("...k,...kn->...n", "w"),
        ),
        "its weight is repeated for a batch that may be another",
    ),
    "a batch axis that the input of an equation does not have": (
        Case(
            "7, 100",
            "7, 60",
            1,
            "u = Unsqueeze (columns, zero_one) " + EINSUM.format("...k,...kn->...n", "u"),
        ),
        "a batch of weights with other axes than its input",
    ),
    "a stack of weights in an equation": (
        Case("2, 100", "2, 30", 1, EINSUM.format("...k,...kn->...n", "stack")),
        "its weight is a stack of 2 matrices",
    ),
    "an implicit result that multiplies": (
        Case("7, 100", "7, 100, 60", 1, EINSUM.format("sk,tn", "columns")),
        EQUATION,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_matrix_product_is_kept(name: str) -> None:
    case, reason = REFUSED[name]
    status, _, found = facts(build(case, "float"))
    assert status == KEPT
    assert reason in found


SLOWER = "which packing makes slower"


CONVOLUTIONS = {
    "no quantizer": (Case("2, 100, 5, 3", "2, 60, 5, 3", 1, "y = Conv (q, filters)"), "float", SLOWER),
    "a maximum over the rows": (
        Case("2, 100, 5, 3", "2, 60, 5, 3", 2, "y = Conv (q, filters)"),
        "int8",
        "the absolute maximum is taken over axes [2]",
    ),
    "more outputs than inputs": (
        Case("2, 60, 5", "2, 100, 5", 1, "w = Transpose <perm = [1, 0, 2]> (filters_1d) y = Conv (q, w)"),
        "int8",
        "more outputs than inputs, " + SLOWER,
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_that_would_be_slower_is_kept(name: str) -> None:
    case, front, reason = CONVOLUTIONS[name]
    status, _, found = facts(build(case, front))
    assert status == KEPT
    assert reason in found


def without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize("front", ["float", "int8"])
@pytest.mark.parametrize(
    "case",
    [
        Case("100, 7", "60, 7", 0, "y = MatMul (rows, q)"),
        Case("2, 3, 100", "2, 3, 60", -1, EINSUM.format("bsk,nk->bsn", "rows")),
        Case("2, 3, 100", "2, 60, 3", -1, EINSUM.format("...sk,nk->...ns", "rows")),
    ],
    ids=["left", "einsum", "einsum, transposed"],
)
def test_a_layer_that_transposes_an_input_of_unknown_rank_is_kept(case: Case, front: str) -> None:
    model = without_shapes(build(case, front))
    status, _, reason = facts(model)
    assert status == KEPT
    assert reason.startswith("the rank of ")
    assert " is not known" in reason


def test_a_stack_of_matrices_is_kept() -> None:
    known = {"stack": np.stack([arrays(-1)["columns"]] * 2)}
    model = models.parse(HEADER.format(x="2, 7, 100", y="2, 7, 60") + "y = MatMul (x, stack)}", known)
    assert facts(model) == (KEPT, "", "its weight is a stack of 2 matrices")


@pytest.mark.parametrize("equation", ["ij,->ij", "ij,"])
def test_an_einsum_with_one_number_is_kept(equation: str) -> None:
    """It reads a constant, which is no matrix of any layout."""
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      scaled (float[4, 8] x) => (float[4, 8] y) {{ y = Einsum <equation = "{equation}"> (x, number) }}"""
    _, (layer,) = models.pack(models.parse(content, {"number": np.float32(3)}))
    assert (layer.status, layer.reason) == (KEPT, "the weight has the shape [], which is no matrix")


def test_a_scale_that_widens_reshaped_tokens_is_not_the_layers() -> None:
    body = "flat = Reshape (q, flat_rows) p = MatMul (flat, columns) y = Div (p, scale)"
    content = HEADER.format(x="1, 7, 100", y="1, 7, 60") + FRONTS["codes"] + body + "}"
    model = models.parse(content, {**arrays(-1), "flat_rows": np.array([7, 100])})
    assert "its output has another rank" in facts(model)[2]
    assert "BitLinear" not in models.op_types(models.assert_same(model))


@pytest.mark.parametrize("name", ["dense", "mask"])
def test_a_matrix_on_the_left_that_is_no_ternary_layer_is_kept(name: str) -> None:
    weight = {"dense": models.latent(), "mask": np.tri(models.N, models.K, dtype=np.float32)}[name]
    content = HEADER.format(x="100, 7", y="60, 7") + "y = MatMul (rows, x)}"
    assert facts(models.parse(content, {"rows": weight}))[0] == KEPT


def test_layers_of_one_input_in_another_layout_are_not_merged() -> None:
    body = "a = MatMul (rows, q) other = Neg (rows) b = MatMul (other, q) y = Sub (a, b)"
    models.assert_same(build(Case("100, 7", "60, 7", 0, body), "int8"), layers=2)
