"""Products with a function or a summand fused in, as onnxruntime's offline optimiser leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from models.optimisers import onnxruntime_extended

from bitcc import passes
from bitcc.facts import PACKED

if TYPE_CHECKING:
    from pathlib import Path

N, K = models.N, models.K
CODES, SCALE = models.quantized(models.latent())
ROWS = CODES.astype(np.float32) * np.float32(SCALE)
RNG = np.random.default_rng(6)
KNOWN = {
    "rows": ROWS,
    "filters": ROWS[:, :, None],
    "dense": RNG.standard_normal((N, K)).astype(np.float32),
    "bias": RNG.standard_normal(N).astype(np.float32),
    **models.QUANTIZER_CONSTANTS,
}
QUANTISED = models.quantizer() + "q = Div (codes, scale)"
FUNCTIONS = {
    "Relu": "",
    "LeakyRelu": "<alpha = 0.2>",
    "Elu": "<alpha = 0.7>",
    "HardSigmoid": "<alpha = 0.3, beta = 0.4>",
    "Selu": "<alpha = 1.5, gamma = 0.9>",
    "Sigmoid": "",
    "Softplus": "",
    "Softsign": "",
    "Tanh": "",
    "ThresholdedRelu": "<alpha = 0.1>",
}
GEMM = "z = Gemm <transB = 1> (q, {weight}, bias) y = {function} {attributes} (z)"
CONV = """
  t = Transpose <perm = [0, 2, 1]> (q) z = Conv (t, filters, bias)
  f = {function} {attributes} (z) y = Transpose <perm = [0, 2, 1]> (f)"""


def fused(folder: Path, body: str, rows: str = "tokens", front: str = QUANTISED) -> onnx.ModelProto:
    """A model behind onnxruntime's optimiser."""
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      fused (float[{rows}, {K}] x) => (float[{rows}, {N}] y) {{ {front} {body} }}"""
    onnx.save(models.parse(content, KNOWN), folder / "model.onnx")
    onnxruntime_extended(folder / "model.onnx", folder / "fused.onnx")
    model = onnx.load(folder / "fused.onnx")
    assert {node.op_type for node in model.graph.node} & {"FusedGemm", "FusedConv"}
    return model


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_function_of_a_gemm_stays_behind_the_layer(tmp_path: Path, function: str) -> None:
    body = GEMM.format(weight="rows", function=function, attributes=FUNCTIONS[function])
    model = fused(tmp_path, body)
    (layer,) = models.pack(model)[1]
    assert (layer.op, layer.status, layer.activation) == ("Gemm", PACKED, "int8_token")
    packed = models.assert_same(model)
    assert models.op_types(packed) == ["BitLinear", function]
    assert models.attributes(packed.graph.node[1]) == models.attributes(_original(tmp_path).graph.node[-1])


def _original(folder: Path) -> onnx.ModelProto:
    return onnx.load(folder / "model.onnx")


@pytest.mark.parametrize("function", ["Relu", "LeakyRelu", "HardSigmoid"])
def test_the_function_of_a_convolution_stays_behind_the_layer(tmp_path: Path, function: str) -> None:
    model = fused(tmp_path, CONV.format(function=function, attributes=FUNCTIONS[function]), rows="2, 3")
    packed = models.assert_same(model)
    assert models.op_types(packed) == ["BitLinear", "Transpose", function, "Transpose"]


def test_float_activations(tmp_path: Path) -> None:
    body = GEMM.format(weight="rows", function="Relu", attributes="")
    model = fused(tmp_path, body, front="q = Neg (x)")
    assert models.op_types(models.assert_same(model)) == ["Neg", "TernaryLinear", "Relu"]


def test_two_layers_one_behind_the_other(tmp_path: Path) -> None:
    """The second reads what the function of the first makes, under the name that it had."""
    body = """
      h = Gemm <transB = 1> (q, rows, bias) f = Relu (h)
      z = Gemm <transA = 1, transB = 0> (f, f_weight) y = Tanh (z)"""
    square, known = models.latent(shape=(N, N)), dict(KNOWN)
    known["f_weight"] = models.quantized(square)[0].astype(np.float32)
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      fused (float[{N}, {K}] x) => (float[{N}, {N}] y) {{ {QUANTISED} {body} }}"""
    onnx.save(models.parse(content, known), tmp_path / "model.onnx")
    onnxruntime_extended(tmp_path / "model.onnx", tmp_path / "fused.onnx")
    model = onnx.load(tmp_path / "fused.onnx")
    assert models.op_types(model).count("FusedGemm") == 2
    packed = models.assert_same(model, layers=2, min_weights=0)
    assert {"f", "y"} <= {name for node in packed.graph.node for name in node.output}


def unchanged(model: onnx.ModelProto, **options: Any) -> tuple[Any, ...]:
    graph = ir.from_proto(model)
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    passes.pipeline(passes.PackBitLinearPass(**options))(graph)
    assert ir.to_proto(graph).SerializeToString(deterministic=True) == before
    facts: tuple[Any, ...] = graph.meta[passes.FACTS]
    return facts


def test_a_product_that_is_kept_is_what_it_was(tmp_path: Path) -> None:
    model = fused(tmp_path, GEMM.format(weight="dense", function="Selu", attributes=FUNCTIONS["Selu"]))
    (layer,) = unchanged(model)
    assert "the weights are dense" in layer.reason


def test_a_ternary_product_that_is_too_small_is_what_it_was(tmp_path: Path) -> None:
    model = fused(tmp_path, GEMM.format(weight="rows", function="Relu", attributes=""))
    (layer,) = unchanged(model, min_weights=10**6)
    assert layer.reason.startswith("it has 6000 weights")


def test_of_two_the_dense_one_is_fused_again(tmp_path: Path) -> None:
    body = "h = Gemm <transB = 1> (q, rows, bias) f = Relu (h) "
    body += "z = Gemm <transB = 1> (q, dense, bias) g = Relu (z) y = Add (f, g)"
    packed = models.assert_same(fused(tmp_path, body))
    assert sorted(set(models.op_types(packed)) & {"BitLinear", "FusedGemm", "Gemm"}) == [
        "BitLinear",
        "FusedGemm",
    ]


UNKNOWN = {
    "a function of somebody else": {"activation": "Swish"},
    "no function": {},
    "a parameter that is missing": {"activation": "LeakyRelu"},
    "a parameter too many": {"activation": "Relu", "activation_alpha": 0.1},
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_stays_as_it_is(tmp_path: Path, name: str) -> None:
    model = fused(tmp_path, GEMM.format(weight="rows", function="Relu", attributes=""))
    (node,) = (node for node in model.graph.node if node.op_type == "FusedGemm")
    kept = [a for a in node.attribute if not a.name.startswith("activation")]
    del node.attribute[:]
    node.attribute.extend([*kept, *(onnx.helper.make_attribute(k, v) for k, v in UNKNOWN[name].items())])
    assert unchanged(model) == ()


def test_a_convolution_with_a_summand_stays_as_it_is(tmp_path: Path) -> None:
    """FusedConv adds its fourth input in front of the function."""
    model = fused(tmp_path, CONV.format(function="Relu", attributes=""), rows="2, 3")
    (node,) = (node for node in model.graph.node if node.op_type == "FusedConv")
    node.input.append(node.input[0])
    assert unchanged(model) == ()


RESIDUAL = "z = MatMul (q, columns) r = Neg (s) y = Add (r, z)"


def summed(folder: Path, body: str, rows: str = "5") -> onnx.ModelProto:
    known = {**KNOWN, "columns": np.ascontiguousarray(ROWS.T), "dense_columns": KNOWN["dense"].T.copy()}
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      fused (float[{rows}, {K}] x, float[{rows}, {N}] s) => (float[{rows}, {N}] y) {{ {QUANTISED} {body} }}"""
    onnx.save(models.parse(content, known), folder / "model.onnx")
    onnxruntime_extended(folder / "model.onnx", folder / "fused.onnx")
    model = onnx.load(folder / "fused.onnx")
    (gemm,) = (node for node in model.graph.node if node.op_type in {"Gemm", "FusedGemm"})
    assert len(gemm.input) == 3
    return model


@pytest.mark.parametrize("function", ["", "Relu"])
def test_a_residual_stays_behind_the_layer(tmp_path: Path, function: str) -> None:
    """With a function it is the other way round: both are in one node."""
    body = RESIDUAL if not function else RESIDUAL.replace("y =", "t =") + f" y = {function} (t)"
    model = summed(tmp_path, body)
    packed, (layer,) = models.pack(model)
    assert (layer.op, layer.status, layer.activation) == ("Gemm", PACKED, "int8_token")
    assert models.op_types(packed) == ["Neg", "BitLinear", "Add", *filter(None, [function])]
    x, s = models.tokens(5), models.tokens(5, k=N, seed=1)
    (got,), (want,) = models.run(packed, x, s=s), models.run(model, x, s=s)
    assert models.largest_difference(got, want) < 1e-5


def test_a_dense_product_with_a_residual_is_what_it_was(tmp_path: Path) -> None:
    (layer,) = unchanged(summed(tmp_path, RESIDUAL.replace("columns", "dense_columns")))
    assert "the weights are dense" in layer.reason


def test_a_residual_that_is_scaled_is_kept(tmp_path: Path) -> None:
    model = summed(tmp_path, RESIDUAL)
    (gemm,) = (node for node in model.graph.node if node.op_type == "Gemm")
    kept = [a for a in gemm.attribute if a.name != "beta"]
    del gemm.attribute[:]
    gemm.attribute.extend([*kept, onnx.helper.make_attribute("beta", 0.5)])
    (layer,) = unchanged(model)
    assert "the bias of the Gemm is not one constant row" in layer.reason
