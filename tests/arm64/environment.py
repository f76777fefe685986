"""An arm64 Linux in a folder, to be run by qemu's user-mode emulation on a machine of another kind.

    PYTHONPATH=tests python -m arm64.environment FOLDER [--releases 1.17.0,1.31.1]

Python and the libraries that it needs are Debian packages, unpacked and not installed; onnxruntime and numpy
are wheels. All is downloaded by this machine's apt and pip, from where they are set to download, into FOLDER:
nothing outside changes, and nobody has to be root. qemu comes from apt too where it is not installed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from arm64.apt import Apt, unpack

RELEASES = ("1.17.0", "1.31.1")  # of onnxruntime
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
_HEADERS = "libonnxruntime-dev"
_STANDARD_LIBRARY = r"libstdc\+\+-[0-9]+-dev"  # zig's own is compiled from its source, for minutes
# qemu shows the CPUs of the machine that it runs on, and onnxruntime takes the lack of arm64 ones badly
_CPUINFO = """\
processor\t: 0
Features\t: fp asimd
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd03
CPU revision\t: 0
"""


def main() -> None:
    """Make the folder."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--releases", default=",".join(RELEASES))
    options = arguments.parse_args()
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} not found: this needs Debian, Ubuntu or another system with apt")
    folder = options.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    apt = Apt(folder / "apt-arm64", "arm64")
    apt.update()
    unpack(apt.download("python3", "libstdc++6"), folder / "root")
    _complete(folder / "root")
    _add_headers(apt, folder)
    if _emulator() is None:
        host = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
        apt = Apt(folder / "apt-host", host)
        apt.update()
        unpack(apt.download("qemu-user-static"), folder / "qemu")
    for release in options.releases.split(","):
        _install(folder / f"onnxruntime-{release}", release, python(folder))


def emulator(folder: Path) -> Path:
    """The qemu that runs arm64 programs."""
    return _emulator() or folder / "qemu" / "usr" / "bin" / "qemu-aarch64-static"


def python(folder: Path) -> Path:
    """The arm64 Python."""
    return (folder / "root" / "usr" / "bin" / "python3").resolve()


def cpp_flags(folder: Path) -> list[str]:
    """What `zig c++` needs beside a source and onnxruntime's library; empty where apt has not all of it."""
    root = folder / "root"
    headers = folder / "headers" / "usr" / "include" / "onnxruntime"
    versions = sorted((root / "usr" / "include" / "c++").glob("*"))
    if not headers.is_dir() or not versions:
        return []
    machine = "aarch64-linux-gnu"
    standard = (versions[-1], root / "usr" / "include" / machine / "c++" / versions[-1].name)
    libraries = (next(root.glob(f"**/{machine}/{name}")) for name in ("libstdc++.so.6", "libgcc_s.so.1"))
    return [
        *("-target", f"{machine}.2.34", "-nostdinc++", "-nostdlib++", "-Wl,--allow-shlib-undefined"),
        *(f"-I{folder}" for folder in standard),
        *("-isystem", str(headers)),
        *map(str, libraries),
    ]


def _emulator() -> Path | None:
    found = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    return Path(found) if found else None


def _complete(root: Path) -> None:
    """What no package brings."""
    if not (root / "lib").exists():  # newer Debians have it as a link to usr/lib
        (root / "lib").symlink_to("usr/lib")
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(_CPUINFO, encoding="ascii")


def _add_headers(apt: Apt, folder: Path) -> None:
    """What a C++ program is compiled with.

    The wheels of onnxruntime lack its headers; Debian has them from release 13 (trixie) on.
    """
    unpack(apt.download_alone(_STANDARD_LIBRARY), folder / "root")
    packages = apt.download_alone(_HEADERS)
    if not packages and apt.mirror():
        newer = Apt(folder / "apt-headers", "arm64", f"deb {apt.mirror()} trixie main\n")
        newer.update()
        packages = newer.download_alone(_HEADERS)
    if packages:
        unpack(packages, folder / "headers")


def _install(site: Path, release: str, interpreter: Path) -> None:
    old = tuple(map(int, release.split(".")[:2])) < (1, 19)  # built for numpy 1
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"),
        *(part for name in _PLATFORMS for part in ("--platform", name)),
        *("--python-version", interpreter.name.removeprefix("python"), "--target", site),
        *(f"onnxruntime=={release}", "numpy<2" if old else "numpy"),
    ]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
