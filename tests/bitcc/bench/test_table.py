"""The tables: every number that matters is in them, and every failure."""

from __future__ import annotations

from dataclasses import replace

from bitcc.bench import model, profile, results, table
from bitcc.bench.rounds import Spread

SPREAD = Spread(0.002, 0.001, 0.003, 0.0005)


def test_the_op_table_has_every_kind_of_case(tiny: results.OpBench) -> None:
    text = table.to_text(table.op_table(tiny))
    for title in ("1 token(s), cached, 1 thread(s)", "3 token(s), cached, 2 thread(s)", "streamed"):
        assert title in text
    assert text.count("48 x 128") == 6
    assert text.count("geometric mean") == 6
    assert f"kernels {tiny.machine.isa}" in text
    assert tiny.machine.cpu in " ".join(text.split())


def test_the_op_table_says_why_a_peer_failed(tiny: results.OpBench) -> None:
    first = tiny.cases[0]
    failed = replace(first.timings[1], seconds=None, ratio=None, gb_per_s=None, reason="no such op")
    case = replace(first, timings=(first.timings[0], failed, *first.timings[2:]))
    text = table.to_text(table.op_table(replace(tiny, cases=(case,), means=())))
    assert "float32 failed: no such op (48 x 128, 1 token(s), cached, 1 thread(s))" in text
    assert [cell.strip() for cell in text.split("│")].count("failed") == 1


def test_the_op_table_warns_of_other_processes(tiny: results.OpBench) -> None:
    calm, disturbed = (replace(tiny, cases=(replace(tiny.cases[0], others=o),)) for o in (0.01, 0.42))
    assert "other processes" not in table.to_text(table.op_table(calm))
    assert "other processes took up to 42% of the cores" in table.to_text(table.op_table(disturbed))


def timing(name: str) -> model.ModelTiming:
    return model.ModelTiming(name, SPREAD, (profile.OpTime("MatMul", 3, 0.001),), 12_300_000)


def test_the_model_table_compares_both(tiny: results.OpBench) -> None:
    bench = model.ModelBench(
        machine=tiny.machine,
        threads=0,
        inputs={"x": (1, 4)},
        rounds=15,
        compiled=timing("compiled"),
        original=timing("original"),
        library_bytes=200_000,
        ratio=2.5,
        difference=1e-6,
        layers=(profile.NodeTime("fc1", "BitLinear", 0.001),),
    )
    text = table.to_text(table.model_table(bench))
    assert "op library: 0.20 MB; 1 BitLinear nodes" in text
    float_layers = tuple(replace(layer, op="TernaryLinear") for layer in bench.layers)
    other = replace(bench, layers=float_layers * 2)
    assert "op library: 0.20 MB; 2 TernaryLinear nodes" in table.to_text(table.model_table(other))
    assert "nothing is packed" in table.to_text(table.model_table(replace(bench, layers=())))
    assert "2.50 times as fast; outputs differ by 1.0e-06 of max|y|" in text
    assert "2.000 (1.000-3.000)" in text
    assert "12.3 MB" in text
    assert "original, by op" in text
    assert "inputs: x [1, 4]; threads: default; 15 rounds" in text
    alone = replace(bench, original=None, ratio=None, difference=None)
    assert "times as fast" not in table.to_text(table.model_table(alone))
