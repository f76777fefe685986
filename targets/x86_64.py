"""x86-64 on Linux, glibc 2.17 (2012) or newer, or musl."""

from __future__ import annotations

from bitcc.targets import (
    _x86_amx,
    _x86_avx2,
    _x86_avx512vbmi,
    _x86_avx512vnni,
    _x86_avx512zen,
    _x86_avxvnni,
    _x86_scalar,
)
from bitcc.targets._base import Target
from bitcc.targets._elf import ELF

# those that need nothing of the system; AMX has to be asked of Linux
VARIANTS = (
    _x86_avx512zen.VARIANT,
    _x86_avx512vbmi.VARIANT,
    _x86_avx512vnni.VARIANT,
    _x86_avxvnni.VARIANT,
    _x86_avx2.VARIANT,
    _x86_scalar.VARIANT,
)

TARGET = Target(
    name="x86-64",
    system="linux",
    machines=("x86_64",),
    needs="Linux with glibc 2.17 or newer, or musl",
    proof="run by every test",
    triple="x86_64-linux-gnu",
    zig_triple="x86_64-linux-gnu.2.17",
    variants=(_x86_amx.VARIANT, *VARIANTS),
    files=ELF,
)
