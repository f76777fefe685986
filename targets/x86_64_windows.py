"""x86-64 on Windows."""

from __future__ import annotations

from bitcc.targets import x86_64
from bitcc.targets._base import Target
from bitcc.targets._coff import COFF

TARGET = Target(
    name="x86-64-windows",
    system="win32",
    machines=("AMD64",),
    needs="Windows 10 or newer",
    proof="run under Wine",
    triple="x86_64-pc-windows-gnu",
    zig_triple="x86_64-windows-gnu",
    variants=x86_64.VARIANTS,
    files=COFF,
)
