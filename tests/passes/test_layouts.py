"""Products in other layouts than x @ W.T: weights on the left, Einsum, convolutions of one element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import models
import numpy as np
import onnx_ir as ir
import pytest

from bitcc import passes
from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Array = NDArray[Any]

N, K = models.N, models.K
HEADER = """
  <ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
  layout (float[{x}] x) => (float[{y}] y) {{
"""
FRONTS = {
    "int8": models.quantizer() + "q = Div (codes, scale)",
    "codes": models.quantizer() + "q = Identity (codes)",
    "float": "q = Identity (x)",
}


class Case(NamedTuple):
    """A layer of 100 inputs and 60 outputs.

    ``axis`` is that of the inputs in x, ``left`` the nodes that stay beside the packed one.
    """

    x: str
    y: str
    axis: int
    body: str
    left: tuple[str, ...] = ()


BOTH = ("Transpose", "Transpose")
EINSUM = 'y = Einsum <equation = "{}"> (q, {})'
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
    "conv, and a norm of batches": Case(
        "2, 100, 5, 3",
        "2, 60, 5, 3",
        1,
        "p = Conv (q, filters, bias) y = BatchNormalization <epsilon = 0.001> (p, gain, bias, gain, gain)",
        BOTH,
    ),
}


def arrays(axis: int) -> dict[str, Array]:
    codes, scale = models.quantized(models.latent())
    rows = codes * np.float32(scale)
    rng = np.random.default_rng(2)
    bias = rng.standard_normal(N).astype(np.float32)
    return {
        "rows": rows,
        "columns": np.ascontiguousarray(rows.T),
        "filters": rows[:, :, None, None],
        "filters_1d": rows[:, :, None],
        "heads": rows.T.reshape(K, 4, 15),
        "rows_of_heads": rows.reshape(4, 15, K),
        "rows_of_inputs": rows.T.reshape(K, 4, 15),
        "split": np.array([K, 4, 15]),
        "bias_of_heads": bias.reshape(4, 15),
        "codes": np.ascontiguousarray(codes.T.astype(np.float32)),
        "batched": rows.T[None],
        "batched_rows": rows[None],
        "zero": np.array([0]),
        "bias": bias,
        "bias_column": bias[:, None],
        "gain": rng.uniform(0.5, 2, N).astype(np.float32),
        "axis": np.array([axis]),
        "eps": np.float32(1e-5),
        **{str(i): np.float32(i) for i in (-128, 127)},
    }


def build(case: Case, front: str) -> onnx.ModelProto:
    body = FRONTS[front] + "\n" + case.body
    if front == "codes":  # divided at the end, where the tokens are in the order of the input
        body = body.replace("y =", "z =") + "\ny = Div (z, scale)"
    return models.parse(HEADER.format(x=case.x, y=case.y) + body + "}", arrays(case.axis))


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


def facts(model: onnx.ModelProto) -> tuple[str, str, str]:
    """(status, activation, reason) of the only candidate; a model with none packed is what it was."""
    graph = ir.from_proto(model)
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    passes.PIPELINE(graph)
    (layer,) = graph.meta[passes.FACTS]
    if layer.status == KEPT:
        assert ir.to_proto(graph).SerializeToString(deterministic=True) == before
    return layer.status, layer.activation, layer.reason


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
    "heads that are moved": (
        Case("2, 7, 100", "2, 4, 7, 15", 2, EINSUM.format("bsd,dhk->bhsk", "heads")),
        "moves the axes of its outputs",
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


def test_the_residue_of_a_quantizer_is_seen_through_behind_a_batch_axis() -> None:
    """One of a thousand deviations leaves noise that no tolerance takes."""
    body = "d = Sub (codes, latent) r = Add (latent, d) w = Unsqueeze (r, zero) y = MatMul (x, w)}"
    latent = models.latent("outlier")
    codes = models.quantized(latent)[0].astype(np.float32)
    known = {**arrays(-1), "latent": np.ascontiguousarray(latent.T), "codes": np.ascontiguousarray(codes.T)}
    model = models.parse(HEADER.format(x="2, 7, 100", y="2, 7, 60") + body, known)
    assert facts(model)[:2] == (PACKED, "float")


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


@pytest.mark.parametrize("front", ["float", "int8"])
@pytest.mark.parametrize(
    "case",
    [
        CASES["left"],
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


def test_an_input_of_unknown_rank_that_is_transposed_anyway_is_packed() -> None:
    body = "t = Transpose <perm = [0, 2, 1]> (q) y = MatMul (t, columns)"
    model = without_shapes(build(Case("2, 100, 7", "2, 7, 60", -2, body), "int8"))
    packed, (found,) = models.pack(model)
    assert found.status == PACKED
    x = np.random.default_rng(0).standard_normal((2, 100, 7)).astype(np.float32)
    (got,), (want,) = models.run(packed, x), models.run(model, x)
    assert models.largest_difference(got, want) < 1e-5


def test_a_stack_of_matrices_is_no_candidate() -> None:
    known = {"stack": np.stack([arrays(-1)["columns"]] * 2)}
    model = models.parse(HEADER.format(x="2, 7, 100", y="2, 7, 60") + "y = MatMul (x, stack)}", known)
    assert models.pack(model)[1] == ()


def without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.ClearField("shape")
    return model


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
    weight = {"dense": models.latent(), "mask": np.tri(N, K, dtype=np.float32)}[name]
    content = HEADER.format(x="100, 7", y="60, 7") + "y = MatMul (rows, x)}"
    assert facts(models.parse(content, {"rows": weight}))[0] == KEPT


def test_layers_of_one_input_in_another_layout_are_not_merged() -> None:
    body = "a = MatMul (rows, q) other = Neg (rows) b = MatMul (other, q) y = Sub (a, b)"
    models.assert_same(build(Case("100, 7", "60, 7", 0, body), "int8"), layers=2)
