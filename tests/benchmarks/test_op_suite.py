"""The op benchmark with all peers that are here: nothing that is missing or wrong is hidden."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import native, op_suite, peers, report, roofline
from benchmarks.peaks import variant_of
from bitcc.bench.contenders import random_layer
from bitcc.bench.rounds import Pace

ROOT = Path(__file__).resolve().parents[2]
TINY = op_suite.Choice(
    shapes=((48, 256), (33, 130)),
    tokens=(1, 66),
    threads=(1,),
    pace=Pace(rounds=1, batch=1e-4, settle=0.0),
    stream_bytes=40_000,
    parts=(op_suite.LAYERS,),
    peak_bytes=1 << 20,
)


_REASONS = ("K must be a multiple of ", "one layer is not read from memory", "fewer than 32 tokens")


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(op_suite.run(TINY)))
    return made


def test_every_peer_is_measured_or_said_to_be_missing(result: dict[str, Any]) -> None:
    part = result["parts"]["layers"]
    assert {*part["contenders"], *result["missing"]} == {"bitcc", "bitnet.cpp", *peers.NAMES}
    kinds = {(c["case"]["tokens"], c["case"]["regime"]) for c in part["cases"]}
    assert kinds == {(1, "cached"), (66, "cached"), (1, "streamed")}
    for case in part["cases"]:
        for timing in case["timings"]:
            assert timing["seconds"] or timing["reason"].startswith(_REASONS)


def test_the_tables_name_all_of_it(result: dict[str, Any]) -> None:
    text = report.markdown(result)
    for title in ("M = 1, cached, 1 thread", "M = 66, cached, 1 thread", "M = 1, streamed, 1 thread"):
        assert f"### layers: {title}\n" in text
    for name in ("nbits4", "| 33 x 130 |", "geometric mean", "bitnet.cpp: not measured"):
        assert name in text
    for name, why in result["missing"].items():
        assert f"- {name}: not measured: {why}" in text


def test_shares_are_of_the_peaks_of_the_kernels_that_ran(result: dict[str, Any]) -> None:
    isa = result["parts"]["layers"]["machine"]["isa"]
    peaks = [
        {"variant": variant_of(isa), "threads": 1, "gmac_per_s": 1e-6, "read_gb_per_s": 1e6},
        {"variant": "another", "threads": 1, "gmac_per_s": 1e-6, "read_gb_per_s": 1e-6},
    ]
    roof = report.case_roof({"threads": 1}, isa, peaks)
    assert roof == peaks[0]
    assert report.case_roof({"threads": 2}, isa, peaks) is None
    assert "(0%)" in report.markdown({**result, "peaks": peaks})


def test_missing_peaks_have_a_reason(result: dict[str, Any]) -> None:
    text = report.markdown({**result, "peaks": [], "no_peaks": {"amx": "the CPU has no amx_int8"}})
    assert "amx: not measurable here: the CPU has no amx_int8" in text


def test_a_point_is_where_its_weights_and_time_put_it(result: dict[str, Any]) -> None:
    part = result["parts"]["layers"]
    (x, *_), (y, *_) = roofline.points(part, "bitcc", 1, "cached")
    case = part["cases"][0]
    (timing,) = (t for t in case["timings"] if t["contender"] == "bitcc")
    macs = case["case"]["n"] * case["case"]["k"]
    assert x == pytest.approx(macs / timing["weight_bytes"])
    assert y == pytest.approx(macs / timing["seconds"]["median"] / 1e9)
    assert roofline.points(part, "bitcc", 2, "cached") == ([], [])


def test_the_picture_is_drawn(result: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    roofline.draw(result, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")


def test_small_layers_are_measured_side_by_side() -> None:
    plans = replace(TINY, parts=op_suite.PARTS).plans()
    assert list(plans) == ["layers", "odd layers side by side", "overhead of one op"]
    assert {regime for name, plan in plans.items() if name != "layers" for _, regime in plan.kinds} == {
        "streamed"
    }


def test_what_is_chosen_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen: list[op_suite.Choice] = []
    monkeypatch.setattr(op_suite, "run", lambda choice, _: chosen.append(choice) or {"suite": "op"})
    monkeypatch.setattr(report, "markdown", str)
    out = tmp_path / "out.json"
    options = "--shapes 64x32 8x16 --tokens 3 --threads 1 --peers int8 --rounds 2 --regimes streamed"
    command.main(["op", *options.split(), "--json", str(out)])
    (choice,) = chosen
    assert choice.shapes == ((64, 32), (8, 16))
    assert (choice.tokens, choice.threads, choice.peers) == ((3,), (1,), ("int8",))
    assert (choice.pace.rounds, choice.regimes, choice.parts) == (2, ("streamed",), op_suite.PARTS)
    assert json.loads(out.read_text()) == {"suite": "op"}


@pytest.mark.parametrize("wrong", ["op --shapes 64", "op --peers nobody", "op --tokens few", ""])
def test_a_wrong_option_is_refused(wrong: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.parser().parse_args(wrong.split())


def test_native_peers_hold_copies_that_differ(tmp_path: Path) -> None:
    layer = random_layer(20, 8, 1)

    def bind(rows: list[Any], scale: Any, x: Any, _: int) -> native.Bound:
        made = [np.empty((1, 20), np.float32) for _ in rows]

        def call() -> None:
            for row, y in zip(rows, made, strict=True):
                y[:] = x @ row.view(np.int8).T * scale

        return native.Bound(call, made)

    peer = native.Native("numpy", "int8 rows", 2e-2, 8, 4, lambda w, _: w.view(np.uint8), bind)
    packed = peer.prepare(tmp_path, layer, 3 * 20 * 8)
    assert (packed.copies, packed.weight_bytes) == (3, 160)
    runner = packed.open(layer.x, 1, tmp_path)
    runner()
    for got, want in zip(runner.outputs(), layer.references(3), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-2)
    odd = random_layer(20, 9, 1)
    with pytest.raises(ValueError, match="multiple of 4"):
        peer.prepare(tmp_path, odd, 0).open(odd.x, 1, tmp_path)


def test_optional_peers_that_are_absent_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise ImportError("no such package")

    monkeypatch.setitem(peers._OPTIONAL, "onnxsim", absent)  # noqa: SLF001 - stands for an absent package
    found, missing = peers.find(("int8", "onnxsim"))
    assert [peer.name for peer in found] == ["int8"]
    assert missing["onnxsim"] == "no such package"


def test_a_machine_without_tvm_measures_what_was_prebuilt(tmp_path: Path) -> None:
    op_suite.prebuild(tmp_path / "built")
    script = (
        "import sys; sys.modules['tvm'] = None\n"
        "from benchmarks import __main__ as command\n"
        "command.main(sys.argv[1:])"
    )
    options = (
        "op --parts layers --shapes 48x64 --tokens 1 --regimes cached --threads 1 --rounds 1 --peers int8"
    )
    command = [sys.executable, "-c", script, *options.split(), "--prebuilt", str(tmp_path / "built")]
    environment = os.environ | {"BITCC_CACHE_DIR": str(tmp_path / "empty")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "| 48 x 64 |" in done.stdout
    assert not (tmp_path / "empty").exists()
