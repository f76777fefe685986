"""The op benchmark on tiny shapes: nothing wrong is timed, nothing that failed is hidden."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper

from bitcc import targets
from bitcc.bench import op, results, table
from bitcc.bench.contenders import BITCC, PEERS, Contender, random_layer
from bitcc.errors import TargetError, VerificationError
from bitcc.libraries import host_targets

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import NodeProto

    from bitcc.bench.contenders import Layer

NAMES = ["bitcc", "float32", "nbits", "int8", "t5"]
FLOAT = PEERS[0]


def one_case(plan: op.Plan) -> op.Plan:
    return replace(plan, shapes=plan.shapes[:1], kinds=plan.kinds[:1], threads=(1,))


def test_every_case_has_every_contender(tiny: results.OpBench, tiny_plan: op.Plan) -> None:
    cases = {(c.n, c.k, c.tokens, c.regime, c.threads) for c in (r.case for r in tiny.cases)}
    assert cases == {
        (n, k, tokens, regime, threads)
        for n, k in tiny_plan.shapes
        for tokens, regime in tiny_plan.kinds
        for threads in tiny_plan.threads
    }
    for result in tiny.cases:
        assert [t.contender for t in result.timings] == NAMES
        assert [t.reason for t in result.timings] == [""] * len(NAMES)


def test_our_op_is_exact_and_the_peers_are_close(tiny: results.OpBench) -> None:
    for result in tiny.cases:
        errors = {t.contender: t.error for t in result.timings}
        assert errors.pop("bitcc") == errors.pop("t5") == 0
        assert all(error is not None and 0 < error < 5e-2 for error in errors.values())


def test_a_stream_holds_the_weights_that_were_asked_for(tiny: results.OpBench, tiny_plan: op.Plan) -> None:
    for result in tiny.cases:
        for timing in result.timings:
            held = timing.copies * timing.weight_bytes
            if result.case.regime == results.STREAMED:
                assert tiny_plan.stream_bytes <= held < tiny_plan.stream_bytes + timing.weight_bytes
            else:
                assert timing.copies == 1


def test_speed_and_ratios_follow_from_the_times(tiny: results.OpBench) -> None:
    for result in tiny.cases:
        ours = result.timing("bitcc")
        assert ours.ratio == 1
        for timing in result.timings:
            assert timing.seconds is not None
            assert ours.seconds is not None
            if timing.gb_per_s is not None:  # else the overhead is all of such a tiny layer
                assert timing.gb_per_s == pytest.approx(timing.weight_bytes / timing.seconds.median / 1e9)
            assert timing.ratio == pytest.approx(timing.seconds.median / ours.seconds.median)  # one round


@pytest.mark.parametrize(("seconds", "told"), [(1.2, True), (1.05, False), (0.9, False)])
def test_no_speed_is_told_of_a_time_that_is_lost_in_the_overhead(
    library: Path,
    tiny_plan: op.Plan,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    told: bool,  # noqa: FBT001 - a parameter of a test
) -> None:
    """A call of a session takes one second here, a call with the layer a bit more or less."""
    times = {"bitcc": [seconds], "overhead": [1.0]}
    monkeypatch.setattr(op, "interleave", lambda *_: times)
    bench = op.run(library, replace(one_case(tiny_plan), kinds=((1, results.CACHED),)), peers=())
    own = bench.cases[0].timing("bitcc")
    assert own.seconds is not None
    assert (own.gb_per_s is not None) == told
    words = table.to_text(table.op_table(bench)).split()
    assert words.count("n/a") == (not told)  # "n/a:" begins the note that explains it


def test_means_are_geometric_over_the_shapes(tiny: results.OpBench) -> None:
    assert len(tiny.means) == len(NAMES[1:]) * 3 * 2  # peers, kinds, threads
    for mean in tiny.means:
        ratios = [
            r.timing(mean.contender).ratio or 0
            for r in tiny.cases
            if (r.case.tokens, r.case.threads, r.case.regime) == (mean.tokens, mean.threads, mean.regime)
        ]
        assert mean.shapes == len(ratios) == 2
        assert mean.ratio == pytest.approx(math.prod(ratios) ** 0.5)


def test_json_loses_nothing(tiny: results.OpBench) -> None:
    plain = tiny.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["machine"]["isa"] in {variant.name for variant in targets.get(host_targets()[0]).variants}
    assert plain["cases"][0]["timings"][0]["seconds"].keys() == {"median", "low", "high", "best"}


def test_a_peer_that_onnxruntime_refuses_is_reported(library: Path, tiny_plan: op.Plan) -> None:
    def nodes(_: Layer) -> list[NodeProto]:
        return [helper.make_node("NoSuchOp", ["x", "W"], ["y"])]

    broken = replace(FLOAT, name="broken", nodes=nodes)
    bench = op.run(library, one_case(tiny_plan), peers=(broken, FLOAT))
    timing = bench.cases[0].timing("broken")
    assert "NoSuchOp" in timing.reason
    assert timing.seconds is None
    assert [mean.contender for mean in bench.means] == ["float32"]


def test_a_peer_that_computes_something_else_is_not_timed(library: Path, tiny_plan: op.Plan) -> None:
    doubled = replace(FLOAT, name="doubled", tensors=lambda layer: {"W": 2 * FLOAT.tensors(layer)["W"]})
    timing = op.run(library, one_case(tiny_plan), peers=(doubled,)).cases[0].timing("doubled")
    assert timing.reason.startswith("its result differs by ")
    assert timing.seconds is None
    assert timing.error == pytest.approx(1, abs=0.05)


def test_a_wrong_result_of_ours_ends_the_benchmark(
    library: Path, tiny_plan: op.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(BITCC, tensors=lambda layer: {**BITCC.tensors(layer), "bias": np.ones(1, np.float32)})
    monkeypatch.setattr(op, "BITCC", wrong)
    with pytest.raises(VerificationError, match=r"differs by .* of max\|y\|"):
        op.run(library, one_case(tiny_plan), peers=())


def test_progress_is_told_before_each_step(library: Path, tiny_plan: op.Plan) -> None:
    said: list[tuple[str, int, int]] = []
    plan = replace(tiny_plan, kinds=tiny_plan.kinds[:2], threads=(1,))
    op.run(library, plan, peers=(), progress=lambda *step: said.append(step))
    assert [(done, count) for _, done, count in said] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert said[1][0] == "48 x 128, 3 tokens, cached"


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="cannot be loaded"):
        op.run(tmp_path / "absent.so")


@pytest.mark.parametrize("contender", [BITCC, *PEERS], ids=lambda c: c.name)
def test_a_layer_is_the_same_each_time(contender: Contender) -> None:
    first, second = (contender.tensors(random_layer(17, 130, 1)) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first | second)


def test_the_quick_plan_is_part_of_the_default_one() -> None:
    assert set(op.quick().shapes) <= set(op.Plan().shapes)
    assert set(op.quick().kinds) <= set(op.Plan().kinds)
