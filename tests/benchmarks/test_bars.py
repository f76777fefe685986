"""Bars are told of by what was measured, and hold only where it says so."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import bars


def timing(name: str, samples: list[float], weight_bytes: int = 100) -> dict[str, Any]:
    """A contender; quartiles are the extremes."""
    seconds = {"median": sorted(samples)[len(samples) // 2], "low": min(samples), "high": max(samples)}
    return {"contender": name, "samples": samples, "seconds": seconds, "weight_bytes": weight_bytes}


def case(
    timings: dict[str, list[float]],
    *,
    n: int = 128,
    k: int = 128,
    tokens: int = 1,
    threads: int = 1,
    regime: str = "cached",
) -> dict[str, Any]:
    """One case with these samples."""
    key = {"n": n, "k": k, "tokens": tokens, "threads": threads, "regime": regime}
    return {"case": key, "timings": [timing(name, samples) for name, samples in timings.items()]}


def found(*cases: dict[str, Any], isa: str = "avx2", title: str = "layers") -> dict[str, bars.Bar]:
    """The bars by their names."""
    result = {"parts": {title: {"machine": {"isa": isa}, "cases": list(cases)}}}
    return {bar.name: bar for bar in bars.find(result)}


@pytest.mark.parametrize(("slow", "holds"), [(2.5, True), (1.5, False)])
def test_one_token_is_compared_with_matmulnbits(slow: float, holds: bool) -> None:  # noqa: FBT001
    got = found(case({"bitcc": [1, 1, 2], "nbits": [slow, slow, 2 * slow]}))
    bar = got["1 token, cached, auto: MatMulNBits 2 bits over ours, 1 thread"]
    assert (bar.holds, bar.figure.split(",")[0]) == (holds, f"{slow:.2f} x")


def test_the_least_layer_must_not_be_hidden_by_the_mean() -> None:
    good = case({"bitcc": [1], "nbits": [9]})
    bad = case({"bitcc": [1], "nbits": [1.2]}, n=64)
    bar = found(good, bad)["1 token, cached, auto: MatMulNBits 2 bits over ours, 1 thread"]
    assert bar.holds is False
    assert bar.figure.endswith("least 1.20 x (64 x 128)")


def test_the_bar_is_for_the_format_that_auto_is() -> None:
    samples = {"bitcc": [1.0], "t5": [1.0], "nbits": [1.5]}
    got = found(case(samples, regime="streamed"))
    title = "MatMulNBits 2 bits over ours, 1 thread"
    holds = {name: got[f"1 token, streamed, {name}: {title}"].holds for name in ("t2", "t5", "auto")}
    assert holds == {"t2": None, "t5": None, "auto": False}


def test_auto_is_t5_for_a_large_layer_also_from_a_cache() -> None:
    small = case({"bitcc": [1.0], "t5": [9.0], "nbits": [2.0]}, n=64)
    large = case({"bitcc": [9.0], "t5": [1.0], "nbits": [8.0]}, n=1 << 13, k=1 << 12)
    bar = found(small, large)["1 token, cached, auto: MatMulNBits 2 bits over ours, 1 thread"]
    assert (bar.holds, bar.figure) == (True, "4.00 x, least 2.00 x (64 x 128)")
    del large["timings"][1]  # t5
    bar = found(small, large)["1 token, cached, auto: MatMulNBits 2 bits over ours, 1 thread"]
    assert bar.figure == "2.00 x, least 2.00 x (64 x 128)"


def test_reading_is_compared_by_the_byte() -> None:
    half = case({"bitcc": [2.0], "read": [1.0]}, regime="streamed")
    bar = found(half)["1 token, streamed, t2: share of the read bandwidth, 1 thread"]
    assert (bar.figure.split(",")[0], bar.holds) == ("50%", False)
    half["timings"][1]["weight_bytes"] = 50
    bar = found(half)["1 token, streamed, t2: share of the read bandwidth, 1 thread"]
    assert (bar.figure.split(",")[0], bar.holds) == ("100%", True)


def test_which_integer_products_have_a_bar_depends_on_the_kernels() -> None:
    one = case({"bitcc": [1.0], "nbits": [7.0], "int8": [3.0]}, tokens=128)
    title = "128 tokens, {}, t2: {} over ours, 1 thread"
    nbits, int8 = "MatMulNBits 2 bits", "DynamicQuantizeLinear + MatMulInteger"
    on_amx, on_vnni, on_avx2 = (found(one, isa=isa) for isa in ("amx", "avx512vnni", "avx2"))
    assert on_amx[title.format("amx", nbits)].holds is False
    assert on_amx[title.format("amx", int8)].holds is True
    assert on_vnni[title.format("avx512vnni", nbits)].holds is True
    assert on_vnni[title.format("avx512vnni", int8)].holds is None
    assert on_avx2[title.format("avx2", nbits)].holds is None  # it has AVX-512 there


@pytest.mark.parametrize(("after", "holds"), [(1.9, True), (2.02, True), (2.2, False)])
def test_a_token_must_not_take_longer_with_more_of_them(after: float, holds: bool) -> None:  # noqa: FBT001
    cases = [case({"bitcc": [1.0]}), case({"bitcc": [after]}, tokens=2)]
    assert found(*cases)["1 to 2 tokens, t2: time of a token, 1 thread"].holds is holds


def test_what_the_quartiles_leave_in_doubt_is_no_rise() -> None:
    cases = [case({"bitcc": [1.0, 1.3]}), case({"bitcc": [2.2, 3.0]}, tokens=2)]
    assert found(*cases)["1 to 2 tokens, t2: time of a token, 1 thread"].holds is True


def test_few_tokens_are_compared_with_the_best_of_onnxruntime() -> None:
    got = found(case({"bitcc": [1.0], "nbits": [3.0], "int8": [1.2], "onnxsim": [0.1]}, tokens=8))
    bar = got["2 to 64 tokens, t2: the best of onnxruntime over ours, 1 thread"]
    assert bar.holds is False
    assert bar.figure == "least 1.20 x (int8, 128 x 128, 8 tokens)"


@pytest.mark.parametrize(("isa", "holds"), [("avx2", True), ("avx512vnni", False), ("scalar", None)])
def test_the_share_of_the_peak_depends_on_the_kernels(isa: str, holds: bool | None) -> None:  # noqa: FBT001
    got = found(case({"bitcc": [1.0], "peak": [0.52]}, tokens=128), isa=isa)
    bar = got.get(f"128 tokens, {isa}, t2: share of the peak, 1 thread")
    assert (bar and bar.holds) is holds


def test_odd_layers_are_compared_from_64_on() -> None:
    tiny = case({"bitcc": [1.0], "float32": [0.1]}, n=16, regime="streamed")
    small = case({"bitcc": [1.0], "float32": [0.9]}, n=64, k=64, regime="streamed")
    got = found(tiny, small, title="odd layers side by side")
    (bar,) = got.values()
    assert (bar.holds, bar.figure) == (False, "0.90 x, least 0.90 x (64 x 64)")


def test_what_did_not_run_has_no_bar() -> None:
    failed = case({"bitcc": [1.0], "nbits": [1.0]}, tokens=128)
    failed["timings"][1]["seconds"] = None
    assert found(failed) == {}
