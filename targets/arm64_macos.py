"""arm64 on macOS: the linker signs the library ad hoc, which these Macs ask of all code."""

from __future__ import annotations

from bitcc.targets import arm64
from bitcc.targets._base import Target
from bitcc.targets._macho import MACHO

TARGET = Target(
    name="arm64-macos",
    system="darwin",
    machines=("arm64",),
    needs="macOS 11 or newer",
    proof="built and inspected, never run by us",
    triple="arm64-apple-macos11",
    zig_triple="aarch64-macos.11.0",
    variants=arm64.VARIANTS,
    files=MACHO,
)
