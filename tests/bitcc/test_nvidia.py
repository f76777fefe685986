"""What a driver tells of its GPUs, with a driver that says what a test wants."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import pytest

from bitcc import nvidia


def write(out: Any, number: int) -> int:
    """Through a pointer that ctypes made."""
    ctypes.cast(out, ctypes.POINTER(ctypes.c_int))[0] = number
    return 0


@dataclass(frozen=True)
class Fake:
    """The functions of `libcuda.so.1` that are asked."""

    devices: tuple[tuple[bytes, int, int], ...] = ()
    error: int = 0
    version: int = 13000

    def cuInit(self, _flags: int) -> int:  # noqa: N802 - the driver's names
        return self.error

    def cuDriverGetVersion(self, out: Any) -> int:  # noqa: N802
        return write(out, self.version)

    def cuDeviceGetCount(self, out: Any) -> int:  # noqa: N802
        return write(out, len(self.devices))

    def cuDeviceGet(self, out: Any, ordinal: int) -> int:  # noqa: N802
        return write(out, 40 + ordinal)

    def cuDeviceGetName(self, out: Any, _size: int, device: ctypes.c_int) -> int:  # noqa: N802
        out.value = self.devices[device.value - 40][0]
        return 0

    def cuDeviceGetAttribute(self, out: Any, attribute: int, device: ctypes.c_int) -> int:  # noqa: N802
        return write(out, self.devices[device.value - 40][{75: 1, 76: 2}[attribute]])


def look(monkeypatch: pytest.MonkeyPatch, driver: Fake) -> nvidia.Gpus:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: {"libcuda.so.1": driver}[name])
    return nvidia.look()


def test_gpus_have_names_and_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Fake(((b"NVIDIA H100 80GB HBM3", 9, 0), (b"Tesla T4", 7, 5)), version=12080)
    found = look(monkeypatch, two)
    assert found == nvidia.Gpus(("NVIDIA H100 80GB HBM3 (sm_90)", "Tesla T4 (sm_75)"), cuda="12.8")


@pytest.mark.parametrize(
    ("driver", "problem"),
    [
        (Fake(error=100), "no CUDA device: the driver finds none"),
        (Fake(), "no CUDA device: the driver finds none"),
        (Fake(error=803), "no CUDA device: the driver does not start (error 803)"),
    ],
)
def test_a_driver_without_a_gpu_is_told_of(
    monkeypatch: pytest.MonkeyPatch, driver: Fake, problem: str
) -> None:
    assert look(monkeypatch, driver) == nvidia.Gpus(cuda="13.0", problem=problem)


def test_a_missing_driver_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    problem = "no CUDA device: the driver (libcuda.so.1) is not installed"
    assert nvidia.look() == nvidia.Gpus(problem=problem)
