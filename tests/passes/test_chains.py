"""Layers that follow each other, or share what they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import onnx.utils
import pytest

from bitcc.facts import PACKED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CHAIN = """
  <ir_version: 10, opset_import: ["" : 18]>
  chain (float[2, 3, 100] x) => (float[2, 3, $last] y)
  <int64[1] axes = {-1}, float eps = {1e-5}, float qmax = {127}>
  {
    x_abs = Abs (x)
    x_max = ReduceMax (x_abs, axes)
    x_clamp = Max (x_max, eps)
    x_scale = Div (qmax, x_clamp)
    x_scaled = Mul (x, x_scale)
    x_round = Round (x_scaled)
    x_codes = Div (x_round, x_scale)
    [first] h = MatMul (x_codes, first_weight)
    g = $between (h)
    g_abs = Abs (g)
    g_max = ReduceMax (g_abs, axes)
    g_clamp = Max (g_max, eps)
    g_scale = Div (qmax, g_clamp)
    g_scaled = Mul (g, g_scale)
    g_round = Round (g_scaled)
    g_codes = Div (g_round, g_scale)
    [second] y = MatMul (g_codes, second_weight)
  }
"""


def chain(first: Array, second: Array, between: str) -> onnx.ModelProto:
    """Two layers with weights [n, k], one behind the other."""
    content = CHAIN.replace("$between", between).replace("$last", str(len(second)))
    content = content.replace("2, 3, 100]", f"2, 3, {first.shape[1]}]")
    return models.parse(content, {"first_weight": first.T.copy(), "second_weight": second.T.copy()})


def run_chain(model: onnx.ModelProto, k: int) -> Array:
    x = np.random.default_rng(0).standard_normal((2, 3, k)).astype(np.float32)
    return models.run(model, x)[0]


@pytest.mark.parametrize("between", ["Relu", "Identity"])
def test_a_layer_behind_a_layer_is_packed_too(between: str) -> None:
    codes, _ = models.quantized(models.latent())
    model = chain(codes.astype(np.float32), codes.T.astype(np.float32), between)
    packed, facts = models.pack(model)
    assert [f.status for f in facts] == [PACKED, PACKED]
    assert [n.name for n in models.bit_linears(packed)] == ["first", "second"]
    assert models.largest_difference(run_chain(packed, models.K), run_chain(model, models.K)) < 1e-5


@pytest.mark.parametrize("seed", range(8))
def test_what_layers_behind_each_other_differ_by_is_moved_codes_alone(seed: int) -> None:
    """The noise of the first layer may move a value over a boundary of the second one's quantizer.

    Then a code is one more or less, and the outputs differ by up to some thousandths. So the second layer is
    compared on what the first one gives it.
    """
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(-1, 2, (256, 256)).astype(np.float32) * np.float32(0.003) for _ in range(2))
    model = chain(first, second, "Identity")
    model.graph.output.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, [2, 3, 256]))
    packed, _ = models.pack(model)
    x = rng.standard_normal((2, 3, 256)).astype(np.float32)
    (_, h_before), (y, h) = models.run(model, x), models.run(packed, x)
    assert models.largest_difference(h, h_before) < 2e-6
    behind = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model(["h"], ["y"])
    behind.graph.node[0].input[0] = behind.graph.input[0].name = "x"
    assert models.largest_difference(y, models.run(behind, h)[0]) < 2e-6


def test_two_weights_of_unlike_shape_but_equal_bytes_are_stored_twice() -> None:
    """Columns of four +, -, +, 0 each pack to equal bytes, whatever N and K are."""
    columns = np.repeat(np.array([1, -1, 1, 0], np.float32), 4)
    model = chain(np.tile(columns, (64, 8)), np.tile(columns, (128, 4)), "Relu")
    packed, _ = models.pack(model)
    shapes = [models.initializers(packed)[node.input[1]].shape for node in models.bit_linears(packed)]
    assert shapes == [(4, 8, 64), (8, 4, 64)]
    assert models.largest_difference(run_chain(packed, 128), run_chain(model, 128)) < 1e-5


def test_layers_that_share_a_quantizer_are_all_packed() -> None:
    """As the queries, keys and values of an attention do."""
    more = """
      k = MatMul (add_68, "fc.codes")
      q = MatMul (add_68, "fc.codes")
      kq = Add (k, q)
      qkv = Add (linear, kq)
      [node_head] val_39 = MatMul (qkv,"""
    model = models.build("dynamo_folded_bias", replace={"[node_head] val_39 = MatMul (linear,": more})
    packed = models.assert_same(model, layers=3)
    assert models.op_types(packed) == [*["BitLinear"] * 3, "Add", "Add", "MatMul", "Add"]
