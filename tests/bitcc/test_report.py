"""What the tables say of a layer."""

from __future__ import annotations

import pytest

from bitcc import report
from bitcc.facts import PACKED, LayerFacts


@pytest.mark.parametrize(
    ("activation", "norm", "words"),
    [
        ("int8_token", "", "int8, per token"),
        ("int8_tensor", "rms", "RMS norm, int8, per tensor"),
        ("float", "", "float"),
        ("", "", ""),
    ],
)
def test_activations_are_told_with_the_norm_that_the_op_has(activation: str, norm: str, words: str) -> None:
    layer = LayerFacts("fc", "MatMul", 8, 8, "ternary", "tensor", activation, PACKED, "", 256, 20, norm=norm)
    assert report.activations(layer) == words
