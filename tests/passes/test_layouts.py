"""Products in other layouts than x @ W.T: weights on the left, Einsum, convolutions of one element."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import pytest
from models.layouts import BOTH, EINSUM, HEADER, Case, arrays, build, facts

from bitcc.facts import PACKED

if TYPE_CHECKING:
    import onnx

CASES = {
    "left": Case("100, 7", "60, 7", 0, "y = MatMul (rows, q)", BOTH),
    "left, batched": Case("2, 100, 7", "2, 60, 7", 1, "y = MatMul (rows, q)", BOTH),
    "left, negative axis": Case("2, 3, 100, 7", "2, 3, 60, 7", -2, "y = MatMul (rows, q)", BOTH),
    "left, one token": Case("100", "60", 0, "y = MatMul (rows, q)"),
    "left, of a weight that is transposed": Case(
        "100, 7", "60, 7", 0, "w = Transpose (columns) y = MatMul (w, q)", BOTH
    ),
    "left, as many outputs as tokens": Case("100, 60", "60, 60", 0, "y = MatMul (rows, q)", BOTH),
    "left, with a bias": Case("100, 7", "60, 7", 0, "p = MatMul (rows, q) y = Add (p, bias_column)", BOTH),
    "left, with a scale of rows": Case(
        "2, 100, 7", "2, 60, 7", 1, "p = MatMul (rows, q) y = Mul (p, bias_column)", BOTH
    ),
    "left, between two transposes": Case(
        "7, 100",
        "7, 60",
        1,
        "t = Transpose (q) p = MatMul (rows, t) b = Add (p, bias_column) y = Transpose (b)",
    ),
    "left, between two transposes, and a bias behind": Case(
        "2, 7, 100",
        "2, 7, 60",
        -1,
        """t = Transpose <perm = [0, 2, 1]> (q) p = MatMul (rows, t)
        u = Transpose <perm = [0, 2, 1]> (p) y = Add (u, bias)""",
    ),
    "left, of an input with transposed tokens": Case(
        "7, 2, 100",
        "7, 2, 60",
        -1,
        """t = Transpose <perm = [1, 2, 0]> (q) p = MatMul (rows, t)
        y = Transpose <perm = [2, 0, 1]> (p)""",
    ),
    "left, of a transposed input": Case(
        "7, 100", "60, 7", 1, "t = Transpose (q) y = MatMul (rows, t)", ("Transpose",)
    ),
    "left, with a transposed output": Case(
        "100, 7", "7, 60", 0, "p = MatMul (rows, q) y = Transpose (p)", ("Transpose",)
    ),
    "right, of a transposed input": Case(
        "100, 7", "7, 60", 0, "t = Transpose (q) y = MatMul (t, columns)", ("Transpose",)
    ),
    "gemm, transA": Case("100, 7", "7, 60", 0, "y = Gemm <transA = 1> (q, columns, bias)", ("Transpose",)),
    "gemm, left": Case("100, 7", "60, 7", 0, "y = Gemm (rows, q, bias_column)", BOTH),
    "gemm, left, transB": Case(
        "7, 100", "60, 7", 1, "y = Gemm <transB = 1, alpha = 0.5> (rows, q)", ("Transpose",)
    ),
    "gemm, left, both": Case(
        "7, 100", "60, 7", 1, "y = Gemm <transA = 1, transB = 1> (columns, q)", ("Transpose",)
    ),
    "fused, left": Case(
        "2, 100, 7", "2, 60, 7", 1, "y = com.microsoft.FusedMatMul <alpha = 0.5> (rows, q)", BOTH
    ),
    "fused, left, transB": Case(
        "2, 7, 100",
        "2, 60, 7",
        2,
        "y = com.microsoft.FusedMatMul <transA = 1, transB = 1> (columns, q)",
        ("Transpose",),
    ),
    "fused, transA": Case(
        "2, 100, 7", "2, 7, 60", 1, "y = com.microsoft.FusedMatMul <transA = 1> (q, columns)", ("Transpose",)
    ),
    "einsum": Case("2, 7, 100", "2, 7, 60", 2, EINSUM.format("bsk,kn->bsn", "columns")),
    "einsum, of rows": Case("2, 7, 100", "2, 7, 60", 2, EINSUM.format("bsd,fd->bsf", "rows")),
    "einsum, ellipsis": Case("2, 7, 100", "2, 7, 60", 2, EINSUM.format("...k, nk -> ...n", "rows")),
    "einsum, empty ellipsis": Case("7, 100", "7, 60", 1, EINSUM.format("...tk,kn->...tn", "columns")),
    "einsum, an implicit result": Case(
        "7, 100", "60, 7", 1, EINSUM.format("sk,kn", "columns"), ("Transpose",)
    ),
    "einsum, an implicit result in order": Case(
        "2, 7, 100", "2, 7, 60", 2, EINSUM.format("abk,kn", "columns")
    ),
    "einsum, an implicit result behind an ellipsis": Case(
        "2, 7, 100", "2, 7, 60", 2, EINSUM.format("...k,kn", "columns")
    ),
    "einsum, a weight in a batch of one": Case(
        "7, 100", "7, 60", 1, "w = Unsqueeze (columns, zero) " + EINSUM.format("...k,...kn->...n", "w")
    ),
    "einsum, a weight of rows in a batch of one": Case(
        "7, 100", "7, 60", 1, EINSUM.format("...k,...nk->...n", "batched_rows")
    ),
    "einsum, a weight that is repeated for all tokens but the batch": Case(
        "batch, 7, 100",
        "batch, 7, 60",
        2,
        """u = Unsqueeze (columns, zero_one) w = Expand (u, copies)
        """
        + EINSUM.format("...k,...kn->...n", "w"),
    ),
    "einsum, weight first": Case(
        "2, 7, 100", "2, 7, 60", 2, 'y = Einsum <equation = "nk,bsk->bsn"> (rows, q)'
    ),
    "einsum, over channels": Case("2, 100, 7", "2, 60, 7", 1, EINSUM.format("bct,oc->bot", "rows"), BOTH),
    "einsum, over channels behind an ellipsis": Case(
        "2, 3, 100, 7", "2, 3, 60, 7", 2, EINSUM.format("...ct,oc->...ot", "rows"), BOTH
    ),
    "einsum, with transposed tokens": Case(
        "2, 7, 100", "7, 2, 60", 2, EINSUM.format("bsk,kn->sbn", "columns"), ("Transpose",)
    ),
    "einsum, heads": Case(
        "2, 7, 100", "2, 7, 4, 15", 2, EINSUM.format("bsd,dhk->bshk", "heads"), ("Reshape",)
    ),
    "einsum, heads of rows": Case(
        "2, 7, 100", "2, 7, 4, 15", 2, EINSUM.format("...d,hkd->...hk", "rows_of_heads"), ("Reshape",)
    ),
    "einsum, heads of a matrix that is reshaped": Case(
        "7, 100",
        "7, 4, 15",
        1,
        "w = Reshape (columns, split) " + EINSUM.format("sd,dhk->shk", "w"),
        ("Reshape",),
    ),
    "einsum, heads in front of the tokens": Case(
        "2, 7, 100",
        "2, 4, 7, 15",
        2,
        EINSUM.format("bsd,dhk->bhsk", "heads"),
        ("Reshape", "Transpose"),
    ),
    "einsum, heads of rows that are swapped": Case(
        "2, 7, 100",
        "15, 2, 4, 7",
        2,
        EINSUM.format("bsd,hkd->kbhs", "rows_of_heads"),
        ("Reshape", "Transpose"),
    ),
    "einsum, heads and a bias": Case(
        "2, 7, 100",
        "2, 7, 4, 15",
        2,
        EINSUM.format("bsd,dhk->bshk", "heads").replace("y =", "p =") + " y = Add (p, bias_of_heads)",
        ("Add", "Reshape"),
    ),
    "batch of one": Case("2, 7, 100", "2, 7, 60", 2, "y = MatMul (q, batched)"),
    "batch of one, added in the graph": Case(
        "2, 7, 100", "2, 7, 60", 2, "w = Unsqueeze (columns, zero) y = MatMul (q, w)"
    ),
    "batch of one, transposed": Case(
        "2, 7, 100",
        "2, 7, 60",
        2,
        "w = Transpose <perm = [0, 2, 1]> (batched_rows) p = MatMul (q, w) y = Add (p, bias)",
    ),
    "batch of one, left": Case("2, 100, 7", "2, 60, 7", 1, "y = MatMul (batched_rows, q)", BOTH),
    "batch of one, fused": Case(
        "3, 7, 100", "3, 7, 60", 2, "y = com.microsoft.FusedMatMul <transB = 1> (q, batched_rows)"
    ),
    "conv": Case("2, 100, 5, 3", "2, 60, 5, 3", 1, "y = Conv (q, filters)", BOTH),
    "conv, one dimension": Case(
        "2, 100, 5", "2, 60, 5", 1, "y = Conv <pads = [0, 0]> (q, filters_1d, bias)", BOTH
    ),
    "conv, between two transposes": Case(
        "2, 5, 3, 100",
        "2, 5, 3, 60",
        3,
        """t = Transpose <perm = [0, 3, 1, 2]> (q) p = Conv <strides = [1, 1]> (t, filters, bias)
        y = Transpose <perm = [0, 2, 3, 1]> (p)""",
    ),
    "conv, of tokens as a line of pixels": Case(
        "2, 7, 100",
        "2, 7, 60",
        -1,
        """u = Unsqueeze (q, one) t = Transpose <perm = [0, 3, 1, 2]> (u) p = Conv (t, filters, bias)
        s = Squeeze (p, two) y = Transpose <perm = [0, 2, 1]> (s)""",
        ("Squeeze", "Transpose", "Transpose", "Unsqueeze"),
    ),
    "conv, and a norm of batches": Case(
        "2, 100, 5, 3",
        "2, 60, 5, 3",
        1,
        "p = Conv (q, filters, bias) y = BatchNormalization <epsilon = 0.001> (p, gain, bias, gain, gain)",
        BOTH,
    ),
}


FRONTS_OF = [(n, f) for n in CASES for f in ("int8", "float") if f == "int8" or not n.startswith("conv")]


@pytest.mark.parametrize(("name", "front"), FRONTS_OF)
def test_the_layer_is_packed_with_no_more_transposes_than_it_needs(name: str, front: str) -> None:
    case = CASES[name]
    packed = models.assert_same(build(case, front))
    op = "BitLinear" if front == "int8" else "TernaryLinear"
    names = [n for n in models.op_types(packed) if n != "Identity"]
    assert sorted(names) == sorted([*case.left, op])


SAME_ORDER = [name for name, case in CASES.items() if case.left in {(), BOTH} and "norm" not in name]


@pytest.mark.parametrize("name", SAME_ORDER)
def test_the_scale_of_codes_may_be_divided_out_where_the_tokens_lie_as_in_the_input(name: str) -> None:
    models.assert_same(build(CASES[name], "codes"))
    assert models.pack(build(CASES[name], "codes"))[1][0].activation == "int8_token"


@pytest.mark.parametrize("name", ["left, of a transposed input", "conv", "einsum, with transposed tokens"])
def test_one_scale_for_the_tensor_is_divided_out_in_any_layout(name: str) -> None:
    model = build(CASES[name], "codes")
    (reduce,) = (node for node in model.graph.node if node.op_type == "ReduceMax")
    del reduce.input[1:]
    packed = models.assert_same(model)
    assert models.bit_linears(packed)[0].op_type == "BitLinear"


def test_the_residue_of_a_quantizer_is_seen_through_behind_a_batch_axis() -> None:
    """One of a thousand deviations leaves noise that no tolerance takes."""
    body = "d = Sub (codes, latent) r = Add (latent, d) w = Unsqueeze (r, zero) y = MatMul (x, w)}"
    latent = models.latent("outlier")
    codes = models.quantized(latent)[0].astype(np.float32)
    known = {**arrays(-1), "latent": np.ascontiguousarray(latent.T), "codes": np.ascontiguousarray(codes.T)}
    model = models.parse(HEADER.format(x="2, 7, 100", y="2, 7, 60") + body, known)
    assert facts(model)[:2] == (PACKED, "float")


def without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.ClearField("shape")
    return model


def test_an_input_of_unknown_rank_that_is_transposed_anyway_is_packed() -> None:
    body = "t = Transpose <perm = [0, 2, 1]> (q) y = MatMul (t, columns)"
    model = without_shapes(build(Case("2, 100, 7", "2, 7, 60", -2, body), "int8"))
    packed, (found,) = models.pack(model)
    assert found.status == PACKED
    x = np.random.default_rng(0).standard_normal((2, 100, 7)).astype(np.float32)
    (got,), (want,) = models.run(packed, x), models.run(model, x)
    assert models.largest_difference(got, want) < 1e-5
