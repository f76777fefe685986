"""The decoder block in all forms, and the example model, in one round."""

from __future__ import annotations

import json

import pytest

from benchmarks import block_suite, decoder_block, model_suite, report

SMALL = decoder_block.Shape(hidden=64, heads=4, kv_heads=2, intermediate=192)


@pytest.mark.parametrize("past", [0, 5])
def test_all_forms_compute_the_same_block(past: int) -> None:
    choice = block_suite.Choice(tokens=(1, 3), past=past, threads=(1,), rounds=1, shape=SMALL)
    result = json.loads(json.dumps(block_suite.run(choice)))
    for case in result["cases"]:
        assert [*case["timings"]] == ["bitcc", "original", "float32", "nbits", "int8", "nbits4"]
        differences = {name: timing["difference"] for name, timing in case["timings"].items()}
        assert differences.pop("original") < 1e-5
        assert all(difference < 5e-2 for difference in differences.values())
    text = report.markdown(result)
    assert f"### block: M = 3, {past} tokens in the cache, 1 thread" in text


def test_the_shape_is_that_of_bitnet_2b4t() -> None:
    layers = decoder_block.Shape().layers()
    assert layers["k"] == layers["v"] == (640, 2560)
    assert (layers["gate"], layers["down"]) == ((6912, 2560), (2560, 6912))


def test_the_example_decodes_one_token() -> None:
    result = json.loads(json.dumps(model_suite.run(model_suite.EXAMPLE, {}, 1, 1)))
    assert result["tokens"] == 1
    assert result["inputs"]["past"][-2] == 128
    assert "tokens/s" in report.markdown(result)
