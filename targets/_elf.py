"""Object files and libraries of Linux and Android."""

from __future__ import annotations

from bitcc.targets._base import FileFormat

ELF = FileFormat(
    library="libbitcc_ops.so",
    flags=(
        "-fPIC",
        "-nostdlib",  # zig would first build a compiler runtime for seconds, with its own slow memset
        "-Wl,-z,defs",
        "-Wl,-z,nodelete",  # onnxruntime keeps pointers into the library after it is unloaded
        "-Wl,--gc-sections",
        "-Wl,--version-script=exports.map",
        "-Wl,-soname,{library}",
        "-Wl,-s",
    ),
    libraries=("-lc",),
    hide=lambda content: content,  # the version script does it
)
