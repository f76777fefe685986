"""What the rewrite does to the rest of the model: nothing that anyone could see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import pytest

from bitcc.facts import PACKED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SEEN = {  # a value of the layer that is an output too -> the nodes that stay
    "add_68": ["Abs", "ReduceMax", "Clip", "Reciprocal", "Mul", "Mul", "Round", "Clip", "Div", "Sub", "Add"],
    "mul_38": ["Abs", "ReduceMax", "Clip", "Reciprocal", "Mul"],
    "abs_1": ["Abs"],
    "linear": [],
}


@pytest.mark.parametrize("value", SEEN)
def test_a_value_of_the_layer_that_is_an_output_too_stays_right(value: str) -> None:
    last = {"mul_38": "1", "linear": "60"}.get(value, "100")
    output = {"[$rows, 20] y)": f"[$rows, 20] y, float[$rows, {last}] {value})"}
    packed = models.assert_same(models.build("dynamo", replace=output))
    assert models.op_types(packed) == [*SEEN[value], "BitLinear", "MatMul", "Add"]


@pytest.mark.parametrize("value", ["mul_38", "clamp_1", "linear"])
def test_a_value_of_the_layer_with_another_consumer_stays_right(value: str) -> None:
    more = {
        "[$rows, 20] y)": "[$rows, 20] y, float[$rows, 100] z)"
        if value != "linear"
        else "[$rows, 20] y, float[$rows, 60] z)",
        "[node_head]": (f"z = Mul (x, {value})" if value != "linear" else "z = Neg (linear)")
        + " [node_head]",
    }
    models.assert_same(models.build("dynamo", replace=more))


def test_a_bias_behind_a_value_that_is_an_output_stays_an_add() -> None:
    output = {"[$rows, 20] y)": "[$rows, 20] y, float[$rows, 60] val_19)"}
    packed = models.assert_same(models.build("dynamo_folded_bias", replace=output))
    assert models.op_types(packed) == ["BitLinear", "Add", "MatMul", "Add"]
    assert not models.initializers(packed)[models.bit_linears(packed)[0].input[3]].any()


@pytest.mark.parametrize("rows", ["2, 3", "a, b", "?, ?"])
@pytest.mark.parametrize("last", ["60", "n", "?", None])
def test_the_declared_output_of_a_layer_that_ends_the_model_stays(rows: str, last: str | None) -> None:
    """A size that is inferred is not one that was declared."""
    shape = f"[{rows}, {last}]" if last else ""
    head = {
        "[$rows, 20] y)": f"{shape} y)",
        "[node_linear] linear =": "[node_linear] y =",
        '  [node_head] val_39 = MatMul (linear, "head.weight")\n  y = Add (val_39, "head.bias")\n': "",
    }
    model = models.build("dynamo", replace=head)
    if last is None:
        model.graph.output[0].type.tensor_type.ClearField("shape")
    packed, _ = models.pack(model)
    assert models.op_types(packed) == ["BitLinear"]
    assert packed.graph.output == model.graph.output
    assert packed.graph.input == model.graph.input


def test_a_layer_that_ends_the_model_keeps_the_name_and_type_of_the_output() -> None:
    head = {
        "[$rows, 20] y)": "[$rows, 60] y)",
        "[node_linear] linear =": "[node_linear] y =",
        '  [node_head] val_39 = MatMul (linear, "head.weight")\n  y = Add (val_39, "head.bias")\n': "",
    }
    model = models.build("dynamo", replace=head)
    packed = models.assert_same(model)
    assert models.op_types(packed) == ["BitLinear"]
    assert packed.graph.output == model.graph.output


def test_the_layer_keeps_the_names_of_its_node_and_value() -> None:
    packed = models.assert_same(models.build("dynamo_folded_bias"))
    (node,) = models.bit_linears(packed)
    assert (node.name, list(node.output)) == ("node_linear", ["linear"])
    assert node.input[0] == "x"


def value_infos(model: onnx.ModelProto) -> dict[str, str]:
    return {v.name: str(v) for v in model.graph.value_info}


def test_what_the_file_says_of_the_shapes_of_values_stays() -> None:
    model = models.build("dynamo")
    model = onnx.shape_inference.infer_shapes(model)
    said = value_infos(model)
    still = value_infos(models.assert_same(model))
    left = {name for node in models.pack(model)[0].graph.node for name in node.output} - {"y"}
    assert {name: text for name, text in still.items() if name in left} == {
        name: text for name, text in said.items() if name in left
    }


def test_nothing_is_added_about_the_shapes_of_other_values() -> None:
    packed = models.assert_same(models.build("dynamo"))
    computed = {name for node in packed.graph.node for name in node.output}
    assert set(value_infos(packed)) & computed <= {"linear"}


def test_two_layers_with_one_weight_store_it_once() -> None:
    more = """
      [second] again = MatMul (add_68, val_37)
      both = Add (linear, again)
      [node_head] val_39 = MatMul (both,"""
    model = models.build("dynamo", replace={"[node_head] val_39 = MatMul (linear,": more})
    packed = models.assert_same(model, layers=2)
    first, second = models.bit_linears(packed)
    assert first.input[1] == second.input[1]
    assert [a.dtype for a in models.initializers(packed).values()].count(np.dtype(np.uint8)) == 1


def test_a_latent_weight_that_something_else_uses_stays() -> None:
    more = {
        "(float[$rows, 20] y)": "(float[$rows, 20] y, float[1, 100] row)",
        "[node_head]": 'row = Gather ("fc.weight", last) [node_head]',
        "<int64[1] val_2": "<int64[1] last = {5}, int64[1] val_2",
    }
    packed = models.assert_same(models.build("dynamo", replace=more))
    np.testing.assert_array_equal(models.initializers(packed)["fc.weight"], models.latent())


def test_an_embedding_that_shares_the_weight_stays() -> None:
    """A ternary embedding that is tied to the product: the table is read by row, and cannot be packed."""
    weight = models.arrays()["fc.dense"]
    more = {
        "(float[$rows, 20] y)": "(float[$rows, 20] y, float[2, 60] rows)",
        "[node_head]": 'rows = Gather ("fc.dense", tokens) [node_head]',
        "<int64[1] val_2": "<int64[2] tokens = {5, 99}, int64[1] val_2",
    }
    model = models.build("dynamo_folded_bias", replace=more)
    packed = models.assert_same(model)
    np.testing.assert_array_equal(models.initializers(packed)["fc.dense"], weight)
    layer, alone = (models.pack(m)[1][0] for m in (model, models.build("dynamo_folded_bias")))
    assert (
        layer.reason
        == f"its weight stays in the model too, {weight.nbytes} bytes more: `rows` (Gather) reads it"
    )
    assert (alone.reason, layer.bytes_after) == ("", alone.bytes_after + weight.nbytes)


def test_a_weight_that_is_an_output_stays_and_is_told_of() -> None:
    model = models.build(
        "dynamo_folded_bias",
        replace={"(float[$rows, 20] y)": '(float[$rows, 20] y, float[100, 60] "fc.dense")'},
    )
    model.graph.initializer.append(models.initializer("fc.dense", models.arrays()["fc.dense"]))
    (layer, _) = models.pack(model)[1]
    assert layer.reason.endswith("24000 bytes more: whoever runs the model reads it")


def test_a_weight_in_a_constant_node_has_a_size_as_well() -> None:
    model = models.build("dynamo_folded_bias")
    (tensor,) = (t for t in model.graph.initializer if t.name == "fc.dense")
    model.graph.initializer.remove(tensor)
    constant = onnx.helper.make_node("Constant", [], ["fc.dense"], value=tensor)
    model.graph.node.insert(0, constant)
    packed = models.assert_same(model)
    assert "Constant" not in models.op_types(packed)
    layer = models.pack(model)[1][0]
    assert (layer.bytes_before, layer.reason) == (24000, "")


def test_an_unused_initializer_of_the_source_stays() -> None:
    model = models.build("dynamo")
    model.graph.initializer.append(models.initializer("unused", np.ones(3, np.float32)))
    packed = models.assert_same(model)
    assert "unused" in models.initializers(packed)


def test_initializers_that_stay_keep_their_order() -> None:
    model = models.build("dynamo_folded_bias")
    before = [t.name for t in model.graph.initializer]
    after = [t.name for t in models.assert_same(model).graph.initializer]
    left = [name for name in before if name in after]
    assert [name for name in after if name in before] == left


def test_a_branch_that_uses_the_layer_reads_its_output() -> None:
    more = {
        "[$rows, 20] y)": "[$rows, 20] y, float[$rows, 60] z)",
        "[node_head]": """z = If <
          then_branch = then_graph () => (float[$rows, 60] a) { a = Neg (linear) },
          else_branch = else_graph () => (float[$rows, 60] b) { b = Identity (linear) }
        > (yes) [node_head]""",
        "<int64[1] val_2": "<bool yes = {1}, int64[1] val_2",
    }
    model = models.build("dynamo", replace=more)
    assert models.op_types(models.assert_same(model)) == ["BitLinear", "If", "MatMul", "Add"]


def test_layers_without_names_are_told_apart() -> None:
    more = {
        "[node_linear] linear =": "linear =",
        '[node_head] val_39 = MatMul (linear, "head.weight")': """
          again = MatMul (add_68, "fc.codes")
          both = Add (linear, again)
          val_39 = MatMul (both, "head.weight")
        """,
    }
    _, facts = models.pack(models.build("dynamo", replace=more))
    assert [f.name for f in facts] == ["linear", "again", "val_39"]
    models.assert_same(models.build("dynamo", replace=more), layers=2)


def test_progress_is_told_before_each_candidate() -> None:
    told: list[tuple[int, int, str]] = []
    models.pack(models.build("dynamo"), progress=lambda *news: told.append(news))
    assert told == [(0, 2, "node_linear"), (1, 2, "node_head")]


def test_the_same_model_gives_the_same_bytes() -> None:
    model = models.build("dynamo_unoptimized")
    first, second = (models.pack(model)[0].SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_a_weight_in_a_constant_node_is_found() -> None:
    dense = ", ".join(f"{value:.9g}" for value in models.arrays()["fc.dense"].reshape(-1))
    node = f"weight = Constant <value = float[100, 60] {{{dense}}}> () abs_1 = Abs (x)"
    packed = models.assert_same(
        models.build("dynamo_folded_bias", replace={"abs_1 = Abs (x)": node, '"fc.dense"': "weight"})
    )
    assert models.op_types(packed) == ["BitLinear", "MatMul", "Add"]


def test_zero_codes_may_be_minus_zero() -> None:
    dense = models.arrays()["fc.dense"]
    models.assert_same(
        models.build("dynamo_folded_bias", values={"fc.dense": np.where(dense == 0, -0.0, dense)})
    )


@pytest.mark.parametrize("rows", ["0, 3", "0", "1", "1, 1, 2", "60", "100"])
def test_any_static_shape_is_packed(rows: str) -> None:
    _, facts = models.pack(models.build("dynamo", rows=rows))
    assert facts[0].status == PACKED


def test_an_input_without_a_shape_is_packed() -> None:
    model = models.build("dynamo")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    _, facts = models.pack(model)
    assert facts[0].status == PACKED


GATED = {
    '["" : $opset]': '["" : $opset, "com.microsoft" : 1]',
    "  abs_1 = Abs (x)": "  gate = com.microsoft.QuickGelu (x)\n  abs_1 = Abs (gate)",
    "(x, mul)": "(gate, mul)",
    "(div, x)": "(div, gate)",
    "(x, detach)": "(gate, detach)",
}


def test_a_layer_behind_an_op_whose_type_is_unknown_is_packed() -> None:
    packed = models.assert_same(models.build("onnxslim", replace=GATED))
    assert models.op_types(packed) == ["QuickGelu", "BitLinear", "MatMul", "Add"]


@pytest.mark.parametrize("spelling", ["quotient", "qcdq"])
def test_without_a_lower_bound_a_token_of_zeros_stays_nan(spelling: str) -> None:
    bounds = {"quotient": "Max (amax, eps)", "qcdq": "Clip (amax, eps)"}
    model = models.build(spelling, opset=20, replace={bounds[spelling]: "Identity (amax)"})
    packed, facts = models.pack(model)
    assert facts[0].status == PACKED
    x = models.tokens(2, 3)
    x[1, 1] = 0
    (got,), (want,) = models.run(packed, x), models.run(model, x)
    assert np.isnan(want[1, 1]).all()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
