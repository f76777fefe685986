"""arm64 on Linux, glibc 2.17 (2012) or newer."""

from __future__ import annotations

from bitcc.targets import _arm_dotprod, _arm_i8mm, _arm_neon, _arm_scalar
from bitcc.targets._base import Target

TARGET = Target(
    name="arm64",
    triple="aarch64-linux-gnu",
    zig_triple="aarch64-linux-gnu.2.17",
    library="libbitcc_ops.so",
    cpu_source="cpu_arm64.c",
    variants=(_arm_i8mm.VARIANT, _arm_dotprod.VARIANT, _arm_neon.VARIANT, _arm_scalar.VARIANT),
)
