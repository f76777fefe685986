"""Model-local functions: those that a layer is made of are inlined, all others stay as they are."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import models
import onnx_ir as ir
import pytest

from bitcc.errors import ModelError
from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

HEADER = '<domain: "{domain}", opset_import: ["" : 18, "local" : 1, "com.microsoft" : 1]> '
GELU = (
    "gelu (a) => (b) { half = Constant <value_float = 0.5> () c = Mul (a, half) d = Erf (c) b = Mul (a, d) }"
)
QUANTIZER = """quantizer <eps> (a) => (b) {
  eps_value = Constant <value_float: float = @eps> ()
  last = Constant <value_ints = [-1]> () low = Constant <value_float = -128.0> ()
  qmax = Constant <value_float = 127.0> ()
  c = Abs (a) d = ReduceMax (c, last) e = Clip (d, eps_value) f = Reciprocal (e) g = Mul (f, qmax)
  h = Mul (a, g) i = Round (h) j = Clip (i, low, qmax) b = Div (j, g) }"""
DENSE = "dense (a, w) => (b) { b = MatMul (a, w) }"
LAYER = "layer (a, w) => (c) { q = local.quantizer <eps = 1e-5> (a) p = MatMul (q, w) c = local.gelu (p) }"


def build(replace: Mapping[str, str], *functions: str, domain: str = "local") -> onnx.ModelProto:
    """The dynamo spelling with these changes, and functions."""
    opsets = {'["" : $opset]': '["" : $opset, "local" : 1, "com.microsoft" : 1]'}
    content = models.text("dynamo", {**opsets, **replace})
    content += "".join(HEADER.format(domain=domain) + body + "\n" for body in functions)
    return models.parse(content.replace("$opset", "18").replace("$rows", "2, 3"), models.arrays())


def functions(model: onnx.ModelProto) -> set[str]:
    return {f.name for f in model.functions if f.domain != "bitcc"}


def behind_the_layer(function: str) -> dict[str, str]:
    return {"[node_head]": f"g = {function} (linear) [node_head]", "MatMul (linear, ": "MatMul (g, "}


DENSE_HEAD = {
    'val_39 = MatMul (linear, "head.weight")': 'val_39 = local.dense (linear, "head.weight")',
    "[node_head]": "",
}


def test_a_function_that_a_quantizer_is_made_of_is_inlined() -> None:
    magnitude = "magnitude (a) => (b) { b = Abs (a) }"
    model = build({"abs_1 = Abs (x)": "abs_1 = local.magnitude (x)"}, magnitude)
    assert functions(models.assert_same(model)) == set()


def test_a_function_that_only_reads_a_layer_stays() -> None:
    packed = models.assert_same(build(behind_the_layer("local.gelu"), GELU))
    assert functions(packed) == {"gelu"}
    assert models.op_types(packed) == ["BitLinear", "gelu", "MatMul", "Add"]


def test_a_function_of_a_runtimes_own_domain_stays() -> None:
    """Its body is for runtimes that have no kernel."""
    gelu = "Gelu (a) => (b) { b = Relu (a) }"
    packed = models.assert_same(build(behind_the_layer("com.microsoft.Gelu"), gelu, domain="com.microsoft"))
    assert "Gelu" in models.op_types(packed)
    assert functions(packed) == {"Gelu"}


def test_a_function_in_front_of_a_quantizer_that_is_a_function_stays() -> None:
    replace = {"add_68 = Add (x, sub_24)": "g = local.gelu (x) add_68 = local.quantizer <eps = 1e-5> (g)"}
    model = build(replace, GELU, QUANTIZER)
    packed, (layer, _) = models.pack(model)
    assert (layer.status, layer.activation) == (PACKED, "int8_token")
    assert models.op_types(packed)[-4:] == ["gelu", "BitLinear", "MatMul", "Add"]
    assert functions(models.assert_same(model)) == {"gelu"}


def test_functions_in_a_function_are_inlined_as_far_as_they_are_the_layers() -> None:
    replace = {"linear = MatMul (add_68, val_37)": "linear = local.layer (x, val_37)", "[node_linear]": ""}
    model = build(replace, LAYER, QUANTIZER, GELU)
    assert functions(models.assert_same(model)) == {"gelu"}
    assert models.pack(model)[1][0].activation == "int8_token"


FUSED = """fused (a, w) => (c) {
  c = com.microsoft.FusedGemm <activation: string = "LeakyRelu", activation_alpha: float = 0.2> (a, w) }"""


def test_a_function_with_a_product_that_is_fused_is_inlined() -> None:
    replace = {
        "linear = MatMul (add_68, val_37)": "linear = local.fused (add_68, val_37)",
        "[node_linear]": "",
    }
    model = build({"$rows": "5", **replace}, FUSED)
    packed, (layer, _) = models.pack(model)
    assert (layer.op, layer.status, layer.activation) == ("Gemm", PACKED, "int8_token")
    assert models.op_types(packed)[-4:] == ["BitLinear", "LeakyRelu", "MatMul", "Add"]
    assert functions(models.assert_same(model)) == set()


def test_a_function_with_a_dense_product_that_is_fused_stays() -> None:
    replace = {
        'val_39 = MatMul (linear, "head.weight")': 'val_39 = local.fused (linear, "head.weight")',
        "[node_head]": "",
    }
    packed, (layer, head) = models.pack(build({"$rows": "5", **replace}, FUSED))
    assert functions(packed) == {"fused"}
    assert (layer.status, head.status) == (PACKED, KEPT)


def test_the_products_of_a_function_that_stays_are_told_of() -> None:
    packed, (layer, head) = models.pack(build(DENSE_HEAD, DENSE))
    assert functions(packed) == {"dense"}
    assert (layer.status, head.status, head.N, head.op) == (PACKED, KEPT, 20, "MatMul")
    assert "the weights are dense" in head.reason


def test_a_function_that_a_layer_and_a_dense_product_share_is_inlined() -> None:
    shared = {
        "linear = MatMul (add_68, val_37)": "linear = local.dense (add_68, val_37)",
        "[node_linear]": "",
    }
    packed = models.assert_same(build({**shared, **DENSE_HEAD}, DENSE))
    assert models.op_types(packed) == ["BitLinear", "MatMul", "Add"]
    assert functions(packed) == set()


def chain(depth: int, width: int) -> list[str]:
    """Functions that call the one below so many times each, and all of them once what a layer is made of."""
    bodies = ["f0 (a) => (b) { b = Relu (a) }"]
    for level in range(1, depth + 1):
        names = ["a", *(f"c{i}" for i in range(1, width)), "b"]
        calls = (f"{y} = local.f{level - 1} ({x})" for x, y in itertools.pairwise(names))
        bodies.append(f"f{level} (a) => (b) {{ {' '.join(calls)} }}")
    return bodies


def test_functions_that_call_each_other_a_thousand_times_are_read() -> None:
    packed = models.assert_same(build(behind_the_layer("local.f3"), *chain(3, 10)))
    assert functions(packed) == {"f0", "f1", "f2", "f3"}


@pytest.mark.parametrize(
    ("depth", "width", "copies"), [(4, 10, 10**4), (40, 10, 10**40), (1, 9000, 9000), (20, 2, 2**20)]
)
def test_functions_that_become_too_many_nodes_are_refused(depth: int, width: int, copies: int) -> None:
    started = time.monotonic()
    with pytest.raises(ir.passes.PassError) as refused:
        models.pack(build(behind_the_layer(f"local.f{depth}"), *chain(depth, width)))
    assert time.monotonic() - started < 20
    cause = refused.value.__cause__
    assert isinstance(cause, ModelError)
    assert f"up to {copies} copies of each" in str(cause)
    assert "inline_local_functions" in cause.hint


def test_functions_that_call_each_other_in_a_circle_are_refused() -> None:
    model = build(behind_the_layer("local.f0"), *chain(1, 1))
    (node,) = next(function.node for function in model.functions if function.name == "f0")
    node.domain, node.op_type = "local", "f1"
    with pytest.raises(ir.passes.PassError) as refused:
        models.pack(model)
    assert isinstance(refused.value.__cause__, ModelError)
    assert "call each other in a circle: `f0` -> `f1` -> `f0`" in str(refused.value.__cause__)
