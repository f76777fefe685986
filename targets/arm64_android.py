"""arm64 on Android.

zig has no headers of Android's libc. Those of musl declare the same few functions, which Android has too,
in a library of the same name, `libc.so`.
"""

from __future__ import annotations

from bitcc.targets import arm64
from bitcc.targets._base import Target
from bitcc.targets._elf import ELF

TARGET = Target(
    name="arm64-android",
    system="android",
    machines=("aarch64",),
    needs="Android 6 (API level 23) or newer",
    proof="built and inspected, never run by us",
    triple="aarch64-linux-android23",
    zig_triple="aarch64-linux-musl",
    variants=arm64.VARIANTS,
    files=ELF,
    flags=(
        "-ffixed-x18",  # belongs to the system
        "-Wl,-z,max-page-size=16384",
    ),
)
