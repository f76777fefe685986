"""Layers in the bodies of If, Loop and Scan: found, proven and replaced where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import pytest

from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

K = models.K
IN_X, IN_STATE = (models.quantizer(x) + "q = Div (codes, scale)\n" for x in ("x", "state"))
IF = """
  condition = Cast <to = 9> ("127")
  y = If <
    then_branch = then_graph () => (float[3, 100] a) {{ {then} }},
    else_branch = else_graph () => (float[3, 100] b) {{ {other} }}
  > (condition)
"""
BODIES = {
    "a branch that reads the weight outside": IF.format(
        then=IN_X + "[fc] a = MatMul (q, square)", other="b = Neg (x)"
    ),
    "a branch that quantises the weight": IF.format(
        then=IN_X + "r = Round (latent) [fc] a = MatMul (q, r)", other="b = Neg (x)"
    ),
    "a quantizer outside": IN_X + IF.format(then="[fc] a = MatMul (q, square)", other="b = Neg (x)"),
    "a weight that is quantised outside": "r = Round (latent) w = Transpose (r)"
    + IF.format(then=IN_X + "[fc] a = Gemm <transB = 1> (q, w)", other="b = Neg (x)"),
    "a loop": """
      y = Loop <body = step (int64 i, bool go, float[3, 100] state) => (bool again, float[3, 100] next)
        { again = Identity (go) """
    + IN_STATE
    + """ [fc] p = MatMul (q, square) next = Add (p, bias) } > (trips, , x)""",
    "a scan": """
      last, y = Scan <num_scan_inputs = 1, body = step (float[100] state, float[100] row)
        => (float[100] next, float[100] out)
        { sum = Add (state, row) next = Mul (sum, half) line = Unsqueeze (next, zero)
          [fc] p = MatMul (line, square) out = Squeeze (p, zero) } > (start, x)""",
}


def arrays() -> dict[str, Array]:
    codes, scale = models.quantized(models.latent(shape=(K, K)))
    square = codes * np.float32(scale)
    return {
        "square": square,
        "left": np.ascontiguousarray(square[:, ::2]),
        "right": np.ascontiguousarray(square[:, 1::2]),
        "dense": models.latent(shape=(K, K)),
        "latent": (codes * 0.8).astype(np.float32),
        "bias": np.linspace(-1, 1, K, dtype=np.float32),
        "trips": np.int64(3),
        "start": np.zeros(K, np.float32),
        "half": np.float32(0.5),
        "zero": np.array([0]),
        "one": np.int64(1),
        "none": np.int64(0),
        "stack": np.stack([square, square[::-1], square.T]),
        **models.QUANTIZER_CONSTANTS,
    }


def parse(body: str) -> onnx.ModelProto:
    content = f"""<ir_version: 10, opset_import: ["" : 18]>
      outer (float[3, {K}] x) => (float[3, {K}] y) {{ {body} }}"""
    return models.parse(content, arrays())


def assert_packed(model: onnx.ModelProto, layers: int = 1) -> onnx.ModelProto:
    packed, facts = models.pack(model)
    assert [layer.status for layer in facts] == [PACKED] * layers, facts
    onnx.checker.check_model(packed)
    x = models.tokens(3)
    (got,), (want,) = models.run(packed, x), models.run(model, x)
    assert models.largest_difference(got, want) < 1e-5
    return packed


@pytest.mark.parametrize("name", BODIES)
def test_a_layer_in_a_body_is_packed_there(name: str) -> None:
    left = models.initializers(assert_packed(parse(BODIES[name])))
    assert not {"square", "latent"} & set(left)


def branch(model: onnx.ModelProto) -> onnx.GraphProto:
    (graph,) = (a.g for node in model.graph.node for a in node.attribute if a.name == "then_branch")
    return graph


def test_an_initializer_of_a_body_goes_with_its_layer() -> None:
    model = parse(BODIES["a branch that reads the weight outside"])
    (weight,) = (t for t in model.graph.initializer if t.name == "square")
    branch(model).initializer.append(weight)
    model.graph.initializer.remove(weight)
    packed = assert_packed(model)
    assert not branch(packed).initializer
    assert [n.op_type for n in branch(packed).node] == ["BitLinear"]


def test_two_branches_with_one_weight_store_it_once() -> None:
    model = parse(
        IN_X
        + IF.format(then="[one] a = MatMul (q, square)", other="[two] p = MatMul (x, square) b = Neg (p)")
    )
    packed = assert_packed(model, layers=2)
    assert [a.dtype for a in models.initializers(packed).values()].count(np.dtype(np.uint8)) == 1


def test_a_weight_that_the_other_branch_reads_stays() -> None:
    model = parse(
        IN_X + IF.format(then="[fc] a = MatMul (q, square)", other="s = ReduceSum (square) b = Mul (x, s)")
    )
    assert "square" in models.initializers(assert_packed(model))


def test_a_weight_that_is_an_output_stays() -> None:
    model = parse(IN_X + "[fc] y = MatMul (q, square)")
    model.graph.output.append(onnx.helper.make_tensor_value_info("square", onnx.TensorProto.FLOAT, [K, K]))
    packed, (layer,) = models.pack(model)
    assert layer.status == PACKED
    np.testing.assert_array_equal(models.run(packed, models.tokens(3))[1], arrays()["square"])


def test_a_weight_that_a_loop_changes_is_no_constant() -> None:
    body = """
      y, w = Loop <body = step (int64 i, bool go, float[3, 100] state, float[100, 100] weight)
        => (bool again, float[3, 100] next, float[100, 100] changed)
        { again = Identity (go) next = MatMul (state, weight) changed = Neg (weight) }> (trips, , x, square)
    """
    (layer,) = models.pack(parse(body))[1]
    assert (layer.status, layer.scheme) == (KEPT, "dense")
    assert "in every turn of the loop" in layer.reason


def test_a_dense_weight_in_a_body_is_kept() -> None:
    model = parse(IF.format(then="[fc] a = MatMul (x, dense)", other="b = Neg (x)"))
    assert [layer.status for layer in models.pack(model)[1]] == [KEPT]


def test_two_layers_of_one_input_in_a_body_become_one() -> None:
    two = "[one] l = MatMul (q, left) [two] r = MatMul (q, right) a = Concat <axis = -1> (l, r)"
    packed = assert_packed(parse(IF.format(then=IN_X + two, other="b = Neg (x)")), layers=2)
    assert [n.op_type for n in branch(packed).node] == ["BitLinear", "Split", "Concat"]


PICKED = {
    "a loop over a stack": """
      y = Loop <body = step (int64 i, bool go, float[3, 100] state) => (bool again, float[3, 100] next)
        { again = Identity (go) w = Gather <axis = 0> (stack, i) next = MatMul (state, w) } > (trips, , x)""",
    "a loop that counts for itself, over a stack that it carries": """
      last, same, y = Loop <
        body = step (int64 i, bool go, int64 n, float[3, 100, 100] all, float[3, 100] state)
          => (bool again, int64 more, float[3, 100, 100] kept, float[3, 100] next)
        { again = Identity (go) more = Add (n, one) kept = Identity (all) w = Gather <axis = 0> (all, n)
          r = Round (w) next = MatMul (state, r) } > (trips, , none, stack, x)""",
    "a scan over a stack": """
      y = Scan <num_scan_inputs = 1, body = step (float[3, 100] state, float[100, 100] w)
        => (float[3, 100] next) { next = MatMul (state, w) } > (x, stack)""",
}


@pytest.mark.parametrize("name", PICKED)
def test_weights_that_a_loop_picks_are_told_of(name: str) -> None:
    (layer,) = models.pack(parse(PICKED[name]))[1]
    assert layer.status == KEPT
    assert layer.reason == "its weights are others in every turn of the loop that it is in"
    assert layer.fix.startswith("export the layers one by one")


def test_a_matrix_that_a_loop_computes_of_its_input_is_no_weight() -> None:
    body = """
      y, w = Loop <body = step (int64 i, bool go, float[3, 100] state, float[100, 100] weight)
        => (bool again, float[3, 100] next, float[100, 100] other)
        { again = Identity (go) next = MatMul (state, weight) t = Transpose (next)
          other = MatMul (t, next) } > (trips, , x, square)"""
    assert models.pack(parse(body))[1] == ()
