"""Counting instructions on arm64: what is written for the emulated machine, and the table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx

from benchmarks.arm64 import __main__ as arm64
from benchmarks.arm64 import cases
from bitcc.bench.contenders import random_layer

if TYPE_CHECKING:
    from pathlib import Path

LAYER = random_layer(32, 64, 2)


def test_the_second_run_of_a_case_has_a_layer_more(tmp_path: Path) -> None:
    written = cases.write(tmp_path, [LAYER], ggml=True)
    assert [case["name"] for case in json.loads((tmp_path / "cases.json").read_text())] == [
        case.name for case in written
    ]
    for case in written:
        assert bool(case.models) != bool(case.type)
        layers = [
            len(onnx.load(tmp_path / model, load_external_data=False).graph.output) for model in case.models
        ]
        assert layers in ([1, 2], [])
    np.testing.assert_array_equal(np.load(tmp_path / "x2.npy"), LAYER.x)


def test_the_table_has_instructions_for_256_products_and_the_ratio() -> None:
    counts = [arm64.Count("neon", "bitcc", 2, 2000), arm64.Count("neon", "peer", 2, 3000)]
    rows = arm64.report(counts, 512).splitlines()
    assert rows[0] == "| neon | 2 tokens |"
    assert rows[2:] == ["| bitcc | 500 (1.00) |", "| peer | 750 (1.50) |"]


def test_the_table_says_why_there_is_no_count() -> None:
    counts = [arm64.Count("neon", "bitcc", 1, 2000), arm64.Count("neon", "peer", 1, problem="no such type")]
    assert "| peer | no such type |" in arm64.report(counts, 512)


def test_a_wrong_result_is_no_count() -> None:
    y = LAYER.reference()
    assert not arm64.wrong(y, y)
    assert "computes something else" in arm64.wrong(-y, y)
    assert arm64.wrong(np.full_like(y, np.nan), y)
