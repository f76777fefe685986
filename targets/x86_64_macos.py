"""x86-64 on macOS.

It turns AVX-512 on for a thread at its first use, so that XCR0 does not show it before: Macs take AVX2.
"""

from __future__ import annotations

from bitcc.targets import x86_64
from bitcc.targets._base import Target
from bitcc.targets._macho import MACHO

TARGET = Target(
    name="x86-64-macos",
    system="darwin",
    machines=("x86_64",),
    needs="macOS 11 or newer",
    proof="built and inspected, never run by us",
    triple="x86_64-apple-macos11",
    zig_triple="x86_64-macos.11.0",
    variants=x86_64.VARIANTS,
    files=MACHO,
)
