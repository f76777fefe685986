"""Every variant on every core, in onnxruntime for arm64: the same bits as the numpy specs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from arm64 import cases, environment
from arm64.machine import CPUS, Machine

from bitcc import targets

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bitcc.bundle import Bundle

ISAS = [variant.name for variant in targets.get("arm64").variants]
_NEWEST = environment.RELEASES[-1]


@pytest.fixture(scope="session")
def results(
    machine: Machine, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    """What the machine says, what it computes for every case by ISA, and what is expected."""
    folder = tmp_path_factory.mktemp(machine.cpu)
    expected = cases.write(folder)
    told = json.loads(machine.python(_NEWEST, "run_cases.py", bundle.library("arm64"), folder, "-", *ISAS))
    ran = [isa for isa, refusal in told["refusals"].items() if not refusal]
    return told, {isa: {name: _load(folder, name, isa) for name in expected} for isa in ran}, expected


def _load(folder: Path, name: str, isa: str) -> NDArray[Any]:
    with np.load(folder / f"{name}.{isa}.npz") as data:
        return np.asarray(data["y"])


def test_the_best_variant_of_the_core_is_taken(machine: Machine, results: Any) -> None:
    told, computed, _ = results
    assert told["library"]["selected"] == CPUS[machine.cpu][0]
    assert set(computed) == {"-", *CPUS[machine.cpu]}


def test_a_variant_that_the_core_lacks_is_refused_in_words(machine: Machine, results: Any) -> None:
    refusals = results[0]["refusals"]
    for isa in set(ISAS) - set(CPUS[machine.cpu]):
        able = ",".join(CPUS[machine.cpu])
        assert f"BITCC_ISA={isa} cannot run on this CPU" in refusals[isa]
        assert f"of these this CPU can run: {able}" in refusals[isa]


def test_every_variant_gives_the_bits_of_the_spec(results: Any) -> None:
    _, computed, expected = results
    assert len(expected) > 20
    for isa, by_name in computed.items():
        for name, want in expected.items():
            got = by_name[name]
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want, f"{isa}: {name}")  # NaNs are equal, of any sign
            finite = np.isfinite(want)
            np.testing.assert_array_equal(np.signbit(got[finite]), np.signbit(want[finite]), f"{isa}: {name}")
