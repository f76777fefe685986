"""What the tables say of a layer."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bitcc import html_report, report
from bitcc.cli import terminal
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


@pytest.mark.parametrize("detailed", [False, True])
@pytest.mark.parametrize("width", [20, 80, 100, 200])
def test_a_narrow_terminal_cuts_nothing(
    width: int, *, detailed: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "/model/layers.31/self_attn/q_proj/MatMul"
    words = (name, "MatMul", 14336, 4096, "ternary", "tensor", "int8_token", PACKED, "", 1 << 28, 1 << 24)
    layer = LayerFacts(*words, norm="rms", zeros=0.34, max_error=3e-7, weight_format="t2")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for variable, value in {"COLUMNS": str(width), "LINES": "50", "TERM": "dumb"}.items():  # without colours
        monkeypatch.setenv(variable, value)
    terminal.show(report.layers_table([layer], detailed=detailed))
    head, *lines = capsys.readouterr().out.splitlines()
    for cell in ("14336 x 4096", "256.0 MB -> 16.0 MB", "3e-07", "packed"):
        assert cell in lines[0]
    after_name, weights = lines[0].index("14336"), head.index("weights")
    after_weights = head.index("bits") if detailed else lines[0].index("256.0 MB")
    assert "".join(line[:after_name].strip() for line in lines) == name
    told = " ".join(line[weights:after_weights].strip() for line in lines)
    assert " ".join(told.split()) == report.weights(layer, scope=detailed)
    activations = " ".join(line[after_weights:] for line in lines) if detailed else ""
    assert all(word in activations for word in ("RMS norm, int8,", "token") if detailed)
