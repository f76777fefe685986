"""Object files and libraries of macOS."""

from __future__ import annotations

import struct

from bitcc.targets._base import FileFormat

_HEADER, _SYMBOL = 32, 16  # bytes
_SYMBOL_TABLE = 2  # the kind of a load command
_TYPE, _IN_SECTION = 0x0E, 0x0E  # of a symbol
_EXTERNAL, _PRIVATE = 0x01, 0x10


def _hide(content: bytes) -> bytes:
    """TVM exports every kernel, and zig's linker takes no list of exports: they become private."""
    hidden = bytearray(content)
    (commands,) = struct.unpack_from("<I", content, 16)
    command = _HEADER
    for _ in range(commands):
        kind, size, symbols, count = struct.unpack_from("<4I", content, command)
        command += size
        if kind != _SYMBOL_TABLE:
            continue
        for symbol in range(symbols, symbols + count * _SYMBOL, _SYMBOL):
            defined = content[symbol + 4] & _TYPE == _IN_SECTION
            if defined and content[symbol + 4] & _EXTERNAL:
                hidden[symbol + 4] |= _PRIVATE
    return bytes(hidden)


MACHO = FileFormat(
    library="libbitcc_ops.dylib",
    flags=(
        "-fPIC",
        "-nostdlib",
        "-D_FORTIFY_SOURCE=0",  # else its headers call checks of libSystem for what the sanitizers check
        "-Wl,-dead_strip",
        "-Wl,-install_name,@rpath/{library}",
        "-s",
    ),
    libraries=("-lc",),
    hide=_hide,
)
