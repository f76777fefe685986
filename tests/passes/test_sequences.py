"""Weights that are split into a sequence of tensors, as torch.onnx writes ``chunk`` without optimisations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from bitcc.facts import KEPT, PACKED
from bitcc.passes._refused import Refused
from bitcc.passes.constants import Constants

if TYPE_CHECKING:
    import onnx

N, K = models.N, models.K
CODES, SCALE = models.quantized(models.latent())
KNOWN: dict[str, Any] = {
    "rows": CODES * np.float32(SCALE),
    "one": np.array(1),
    "last": np.array(-1),
    "third": np.array(20),
    "most_of_half": np.array(27),
    "unlike": np.array([15, 0, 45]),
    "too_few": np.array([15, 15]),
    "negative": np.array([80, -20]),
    "none": np.array(0),
    "no_parts": np.array([], np.int64),
    "fourth": np.array(3),
    "many": np.zeros((2000, 4), np.float32),
    **models.QUANTIZER_CONSTANTS,
}


def model(body: str, y: str) -> onnx.ModelProto:
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      split (float[2, 3, {K}] x) => (float[{y}] y) {{ {body} }}"""
    return models.parse(content, KNOWN)


def evaluated(split: str, at: str = "at = SequenceAt (parts, one)") -> np.ndarray[Any, Any]:
    """What the constants of a model say of ``at``."""
    graph = ir.from_proto(model(f"{split} {at} y = MatMul (x, at)", "2, 3, 1"))
    return Constants(graph).array(ir.convenience.create_value_mapping(graph.graph)["at"])


SPLITS = [
    "parts = SplitToSequence (rows, third)",
    "parts = SplitToSequence (rows, most_of_half)",
    "parts = SplitToSequence (rows, unlike)",
    "parts = SplitToSequence <axis = 1> (rows, third)",
    "parts = SplitToSequence <axis = -1, keepdims = 0> (rows, third)",
    "parts = SplitToSequence (rows)",
    "parts = SplitToSequence <keepdims = 0> (rows)",
    "parts = SplitToSequence <axis = 1, keepdims = 0> (rows)",
]


@pytest.mark.parametrize("at", ["one", "last"])
@pytest.mark.parametrize("split", SPLITS)
def test_a_part_is_what_onnx_says(split: str, at: str) -> None:
    at = f"at = SequenceAt (parts, {at})"
    reference = ReferenceEvaluator(model(f"{split} {at} y = Identity (at)", "rows, columns"))
    (want,) = reference.run(None, {"x": models.tokens(2, 3)})
    np.testing.assert_array_equal(evaluated(split, at), want)


@pytest.mark.parametrize(
    ("split", "reason"),
    [
        ("parts = SplitToSequence (rows, too_few)", "its parts end at"),
        ("parts = SplitToSequence (rows, negative)", "its parts end at"),
        ("parts = SplitToSequence (rows, no_parts)", "its parts end at"),
        ("parts = SplitToSequence (rows, none)", "cannot be evaluated"),
        ("parts = SplitToSequence <axis = 2> (rows, third)", "out of range"),
        ("parts = SplitToSequence (many)", "is split into 2000 parts"),
        ("parts = Identity (rows)", "no sequence"),
    ],
)
def test_what_is_no_split_is_refused(split: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        evaluated(split)
    assert reason in refused.value.reason


def test_an_index_behind_the_last_part_is_refused() -> None:
    with pytest.raises(Refused, match="out of bounds"):
        evaluated("parts = SplitToSequence (rows, third)", "at = SequenceAt (parts, fourth)")


def product(weight: str) -> str:
    return f"{models.quantizer()} q = Div (codes, scale) t = Transpose ({weight}) y = MatMul (q, t)"


def test_a_part_of_a_weight_is_packed() -> None:
    original = model(f"{SPLITS[0]} at = SequenceAt (parts, one) {product('at')}", "2, 3, 20")
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.N) == (PACKED, "int8_token", 20)
    assert models.op_types(models.assert_same(original)) == ["BitLinear"]


def test_a_sequence_is_no_weight_and_no_number() -> None:
    original = model(f"parts = SplitToSequence (rows, third) {product('parts')}", "2, 3, 20")
    assert all(layer.status == KEPT for layer in models.pack(original)[1])
