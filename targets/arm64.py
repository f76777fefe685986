"""arm64 on Linux, glibc 2.17 (2012) or newer."""

from __future__ import annotations

from bitcc.targets import _arm_dotprod, _arm_i8mm, _arm_neon, _arm_scalar
from bitcc.targets._base import Target
from bitcc.targets._elf import ELF

VARIANTS = (_arm_i8mm.VARIANT, _arm_dotprod.VARIANT, _arm_neon.VARIANT, _arm_scalar.VARIANT)

TARGET = Target(
    name="arm64",
    system="linux",
    machines=("aarch64",),
    needs="Linux with glibc 2.17 or newer",
    proof="run under qemu, on four emulated CPUs",
    triple="aarch64-linux-gnu",
    zig_triple="aarch64-linux-gnu.2.17",
    variants=VARIANTS,
    files=ELF,
)
