"""What a rewritten file declares: its version, its opset, and the types of its values."""

from __future__ import annotations

import ml_dtypes
import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bitcc import passes
from bitcc.facts import PACKED


def test_the_file_version_is_no_newer_than_needed() -> None:
    model = models.build("dynamo")
    model.ir_version = 11
    packed = models.assert_same(model)
    assert packed.ir_version == 8


def test_an_initializer_that_is_an_input_of_an_old_file_is_still_one() -> None:
    model = models.build("torchscript", opset=15, replace={"100] x)": '100] x, float[60, 100] "fc.weight")'})
    model.ir_version = 3
    model.graph.initializer.append(models.initializer("fc.weight", models.latent()))
    graph = ir.from_proto(model)
    passes.PIPELINE(graph)
    assert [v.name for v in graph.graph.inputs] == ["x", "fc.weight"]
    assert graph.meta[passes.FACTS][0].status == PACKED


@pytest.mark.parametrize("opset", [13, 14])
def test_a_model_from_before_castlike(opset: int) -> None:
    packed = models.assert_same(models.build("torchscript", opset=opset))
    assert packed.opset_import[0].version == opset
    assert models.op_types(packed) == ["BitLinear", "MatMul", "Add"]


OLDER = {  # how older opsets have their reductions
    "half_bias": {
        "<noop_with_empty_axes = 0, keepdims = 1> (convert_element_type_default_1, val_2)": (
            "<axes = [-1], keepdims = 1> (convert_element_type_default_1)"
        ),
        "<noop_with_empty_axes = 0, keepdims = 1> (convert_element_type_default_7)": (
            "<keepdims = 1> (convert_element_type_default_7)"
        ),
    },
    "weight_only/half": {},
}


@pytest.mark.parametrize("opset", [13, 14])
@pytest.mark.parametrize(
    ("spelling", "op_type"), [("half_bias", "BitLinear"), ("weight_only/half", "TernaryLinear")]
)
def test_half_precision_from_before_castlike_is_cast_on_both_sides(
    spelling: str, op_type: str, opset: int
) -> None:
    model = models.build(spelling, opset=opset, replace=OLDER[spelling])
    packed, (layer, *_) = models.pack(model)
    assert layer.status == PACKED
    assert models.op_types(packed)[:3] == ["Cast", op_type, "Cast"]
    x = models.tokens(2, 3).astype(np.float16)
    (got,), (want,) = models.run(packed, x), models.run(model, x)
    assert models.largest_difference(got, want) < 2e-2


def test_half_precision_layers_keep_their_types() -> None:
    for half, element in (("float16", onnx.TensorProto.FLOAT16), ("bfloat16", onnx.TensorProto.BFLOAT16)):
        packed, _ = models.pack(models.build("half_bias", half=half))
        assert models.op_types(packed) == ["BitLinear", "MatMul"]
        (info,) = (v for v in packed.graph.value_info if v.name == "linear")
        assert info.type.tensor_type.elem_type == element


def test_a_double_precision_layer_is_not_rounded_to_single() -> None:
    content = models.text("hf_offline_rms_bias").replace("float", "double")
    names = ("fc.codes", "fc.bias", "fc.weight_scale", "norm.weight", "head.weight", "head.bias")
    known = {name: models.arrays()[name].astype(np.float64) for name in names}
    model = models.parse(content.replace("$opset", "18").replace("$rows", "2, 3"), known)
    packed, _ = models.pack(model)
    x = models.tokens(2, 3).astype(np.float64)
    (got,), (want,) = models.run(packed, x), models.run(model, x)
    assert models.largest_difference(got, want) < 1e-12


def test_a_quantizer_in_double_precision_is_not_packed_in_single() -> None:
    wide = """x_wide = Cast <to = 11> (x) scale_wide = Cast <to = 11> (mul_38)
      scaled_wide = Mul (x_wide, scale_wide) mul_41 = Cast <to = 1> (scaled_wide)"""
    model = models.build("dynamo", replace={"mul_41 = Mul (x, mul_38)": wide})
    packed = models.assert_same(model)
    assert models.bit_linears(packed)[0].op_type == "TernaryLinear"
    assert models.pack(model)[1][0].reason == "activations stay float: a part of it computes in double"


def test_the_file_version_stays_new_enough_for_the_types_in_it() -> None:
    more = {"[$rows, 20] y)": "[$rows, 20] y, int4[3] z)", "[node_head]": "z = Identity (small) [node_head]"}
    model = models.build("dynamo", values={"small": np.zeros(3, ml_dtypes.int4)}, replace=more, opset=21)
    packed, _ = models.pack(model)
    assert packed.ir_version == model.ir_version == 10
