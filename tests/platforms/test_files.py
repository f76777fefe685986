"""Libraries for systems that are not here, as files: what they export and what they need."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bitcc import runtime_ops, targets
from bitcc.targets._base import Shim
from bitcc.targets._codegen import write_object
from bitcc.targets._link import link

if TYPE_CHECKING:
    from collections.abc import Callable

lief = pytest.importorskip("lief", reason="reading libraries of other systems needs lief")

EXPORTS = {"RegisterCustomOps", "bitcc_library_info"}
# what a C program may ask of any of these systems
PRINTF = {"fprintf", "snprintf", "vsnprintf"}
LIBC = {"calloc", "free", "getenv", "malloc", "memcpy", "memset", "strcmp", "strlen"} | PRINTF
DRIVER = {"bcmp", "dlerror", "dlopen", "dlsym", "pthread_mutex_lock", "pthread_mutex_unlock"}
UCRT = (LIBC - PRINTF) | {"__stdio_common_vsprintf", "__stdio_common_vfprintf", "__acrt_iob_func"}


def of_system(system: str) -> Any:
    names = [target.name for target in targets.TARGETS.values() if target.system == system]
    return pytest.mark.parametrize("name", names)


def alignments(elf: Any) -> set[int]:
    """Of the segments that are loaded: no smaller than a page of any machine."""
    return {segment.alignment for segment in elf.segments if segment.type == lief.ELF.Segment.TYPE.LOAD}


@of_system("linux")
def test_a_library_for_linux(name: str, library: Callable[[str], Path]) -> None:
    elf = lief.ELF.parse(str(library(name)))
    assert {symbol.name for symbol in elf.exported_symbols} == EXPORTS
    system = {"stderr", "syscall", "getauxval"} | (DRIVER if targets.get(name).gpus else set())
    assert {symbol.name for symbol in elf.imported_symbols} <= LIBC | system
    assert set(elf.libraries) - {"libdl.so.2"} == {"libc.so.6"}  # which musl's loader takes for itself
    assert targets.get(name).gpus or "libdl.so.2" not in elf.libraries
    assert not elf.has(lief.ELF.DynamicEntry.TAG.TEXTREL)
    assert not any(segment.type == lief.ELF.Segment.TYPE.TLS for segment in elf.segments)
    largest_page = 1 << 16 if name == "arm64" else 1 << 12
    assert alignments(elf) == {largest_page}


@of_system("android")
def test_a_library_for_android(name: str, library: Callable[[str], Path]) -> None:
    elf = lief.ELF.parse(str(library(name)))
    assert {symbol.name for symbol in elf.exported_symbols} == EXPORTS
    assert {symbol.name for symbol in elf.imported_symbols} <= LIBC | {"stderr", "getauxval"}
    assert elf.libraries == ["libc.so"]
    assert alignments(elf) == {1 << 14}  # devices with such pages load nothing else
    assert not elf.has(lief.ELF.DynamicEntry.TAG.TEXTREL)


@of_system("win32")
def test_a_library_for_windows(name: str, library: Callable[[str], Path]) -> None:
    pe = lief.PE.parse(str(library(name)))
    assert {entry.name for entry in pe.get_export().entries} == EXPORTS
    imports = {dll.name: {entry.name for entry in dll.entries} for dll in pe.imports}
    assert imports.pop("KERNEL32.dll") == {"GetModuleHandleExW"}
    assert all(name.startswith("api-ms-win-crt-") for name in imports)  # the C runtime of the system
    assert set().union(*imports.values()) <= UCRT
    characteristics = pe.optional_header.dll_characteristics_lists
    assert lief.PE.OptionalHeader.DLL_CHARACTERISTICS.DYNAMIC_BASE in characteristics
    assert lief.PE.OptionalHeader.DLL_CHARACTERISTICS.NX_COMPAT in characteristics
    assert pe.optional_header.major_subsystem_version <= 10


@of_system("darwin")
def test_a_library_for_macos(name: str, library: Callable[[str], Path]) -> None:
    macho = lief.MachO.parse(str(library(name)))[0]
    exported = {symbol.name.removeprefix("_") for symbol in macho.exported_symbols}
    assert exported - {"_mh_dylib_header", "__dso_handle"} == EXPORTS
    loader = {"dyld_stub_binder", "_dladdr", "_dlopen", "___stderrp", "_sysctlbyname"}
    conversions = {"___extendhfsf2", "___truncsfhf2"}  # of half precision, since macOS 10.11
    libc = {f"_{function}" for function in LIBC} | {"_bzero", "___bzero"}
    assert {symbol.name for symbol in macho.imported_symbols} <= libc | loader | conversions
    assert [dylib.name for dylib in macho.libraries] == [
        "@rpath/libbitcc_ops.dylib",
        "/usr/lib/libSystem.B.dylib",
    ]
    assert macho.build_version.platform == lief.MachO.BuildVersion.PLATFORMS.MACOS
    assert macho.build_version.minos == [11, 0, 0]
    assert macho.has_code_signature == ("arm64" in name)  # there the loader asks for one


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_library_is_small_and_names_no_path(name: str, library: Callable[[str], Path]) -> None:
    built = library(name)
    content = built.read_bytes()
    assert len(content) < (300_000 if not targets.get(name).gpus else 2_500_000)
    for path in (built.parents[2], Path.home(), Path(targets.__file__).parent, Path(sys.prefix)):
        assert str(path).encode() not in content


@pytest.mark.parametrize("name", ["x86-64-macos", "x86-64-windows"])
def test_the_same_input_gives_the_same_bytes_anywhere(name: str, tmp_path: Path) -> None:
    target = replace(targets.get(name), variants=targets.get(name).variants[-1:])
    shim = Shim(runtime_ops.sources(), runtime_ops.include_dir(), "1.2.3")
    kernels = tmp_path / "scalar.o"
    write_object(target, target.variants[0], kernels, lambda _: None)
    built = []
    for folder in (tmp_path / "one", tmp_path / "another"):
        folder.mkdir()
        copy = Path(shutil.copy(kernels, folder))
        built.append(link(target, [copy], shim, folder, zig_cache=folder / "zig").read_bytes())
    assert built[0] == built[1]
