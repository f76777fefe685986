"""The NVIDIA GPUs of this machine, as their driver tells."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_DRIVER = "libcuda.so.1"
_SUCCESS, _NO_DEVICE = 0, 100
_NAME_BYTES = 256
_MAJOR, _MINOR = 75, 76  # device attributes: those of the compute capability


@dataclass(frozen=True)
class Gpus:
    """What was found.

    Attributes:
        names: Such as ``NVIDIA H100 80GB HBM3 (sm_90)``.
        cuda: The newest CUDA that the driver supports, such as ``13.0``; empty if there is none.
        problem: Why there is no GPU that can be used, in words; empty if there is one.
    """

    names: tuple[str, ...] = ()
    cuda: str = ""
    problem: str = ""


def look() -> Gpus:
    """Ask the driver."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return Gpus(problem=f"no CUDA device: the driver ({_DRIVER}) is not installed")
    error = driver.cuInit(0)
    cuda = _cuda_version(driver)
    if error == _NO_DEVICE:
        return Gpus(cuda=cuda, problem="no CUDA device: the driver finds none")
    if error != _SUCCESS:
        return Gpus(cuda=cuda, problem=f"no CUDA device: the driver does not start (error {error})")
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    names = tuple(_name(driver, ordinal) for ordinal in range(count.value))
    return Gpus(names, cuda, "" if names else "no CUDA device: the driver finds none")


def _cuda_version(driver: ctypes.CDLL) -> str:
    number = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(number)) != _SUCCESS:
        return ""
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _name(driver: ctypes.CDLL, ordinal: int) -> str:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), ordinal)
    text = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGetName(text, _NAME_BYTES, device)
    capability = []
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(number.value)
    major, minor = capability
    return f"{text.value.decode(errors='replace')} (sm_{major}{minor})"
