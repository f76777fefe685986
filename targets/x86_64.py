"""x86-64 on Linux, glibc 2.17 (2012) or newer."""

from __future__ import annotations

from bitcc.targets import _x86_amx, _x86_avx2, _x86_avx512vnni, _x86_avxvnni, _x86_scalar
from bitcc.targets._base import Target

TARGET = Target(
    name="x86-64",
    triple="x86_64-linux-gnu",
    zig_triple="x86_64-linux-gnu.2.17",
    library="libbitcc_ops.so",
    cpu_source="cpu_x86_64.c",
    variants=(
        _x86_amx.VARIANT,
        _x86_avx512vnni.VARIANT,
        _x86_avxvnni.VARIANT,
        _x86_avx2.VARIANT,
        _x86_scalar.VARIANT,
    ),
)
