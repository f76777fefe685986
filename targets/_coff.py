"""Object files and libraries of Windows."""

from __future__ import annotations

import struct

from bitcc.targets._base import FileFormat

_HEADER, _SECTION = 20, 40  # bytes


def _hide(content: bytes) -> bytes:
    """TVM marks every kernel for export, by words to the linker in a section of their own: they go."""
    hidden = bytearray(content)
    (sections,) = struct.unpack_from("<H", content, 2)
    for header in range(_HEADER, _HEADER + sections * _SECTION, _SECTION):
        name, size, begin = struct.unpack_from("<8s8xII", content, header)
        if name == b".drectve":
            hidden[begin : begin + size] = b" " * size
    return bytes(hidden)


COFF = FileFormat(
    library="bitcc_ops.dll",
    flags=(
        "-nostdlib",  # zig would first compile hundreds of files of mingw's runtime: src/windows.c is enough
        "-isystem{zig}/libc/include/any-windows-any",
        "-Wl,--gc-sections",
        "-s",
    ),
    # what applications of Windows 10 are linked with: forwarders to the C runtime of the system
    libraries=(
        *(
            f"-lapi-ms-win-crt-{part}-l1-1-0"
            for part in ("environment", "heap", "private", "stdio", "string")
        ),
        "-lkernel32",
    ),
    hide=_hide,
)
