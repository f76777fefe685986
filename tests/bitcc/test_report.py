"""What the tables say of a layer."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bitcc import html_report, report
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


def measured(numerics: str, weight_error: float | None) -> LayerFacts:
    words = ("fc", "MatMul", 8, 8, "ternary", "tensor", "float", PACKED, "", 256, 20)
    return LayerFacts(*words, numerics=numerics, max_error=3e-7, weight_error=weight_error)


@pytest.mark.parametrize(
    ("numerics", "weight_error", "words"),
    [
        ("exact", None, "3e-07"),
        ("float32", 0.0, "3e-07, float32"),
        ("snapped", 2e-3, "3e-07, snapped, weights 2e-03"),
        ("faithful", None, "3e-07, faithful"),
    ],
)
def test_an_error_is_told_with_the_numerics_and_that_of_the_weights(
    numerics: str, weight_error: float | None, words: str
) -> None:
    layer = measured(numerics, weight_error)
    assert report.error(layer) == words
    assert f">{words}</td>" in html_report.page("m", [layer])
    is_explained = numerics != "exact"
    for shown in (html_report.page("m", [layer]), printed(layer)):
        assert (report.NUMERICS.get(numerics, "its weights had")[:20] in shown) is is_explained


def printed(layer: LayerFacts) -> str:
    console = Console(width=500, file=io.StringIO())
    with console.capture() as capture:
        console.print(report.layers_table([layer]))
    return capture.get()
