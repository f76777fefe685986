"""An arm64 Linux in a folder, to be run by qemu's user-mode emulation on a machine of another kind.

    python tests/arm64/environment.py FOLDER [--releases 1.17.0,1.31.1]

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

RELEASES = ("1.17.0", "1.31.1")  # of onnxruntime
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
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
    root = folder / "root"
    _unpack(_download(folder / "apt-arm64", "python3", "libstdc++6", architecture="arm64"), root)
    _complete(root)
    if _emulator() is None:
        host = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
        _unpack(_download(folder / "apt-host", "qemu-user-static", architecture=host), folder / "qemu")
    for release in options.releases.split(","):
        _install(folder / f"onnxruntime-{release}", release, python(folder))


def emulator(folder: Path) -> Path:
    """The qemu that runs arm64 programs."""
    return _emulator() or folder / "qemu" / "usr" / "bin" / "qemu-aarch64-static"


def python(folder: Path) -> Path:
    """The arm64 Python."""
    return (folder / "root" / "usr" / "bin" / "python3").resolve()


def _emulator() -> Path | None:
    found = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    return Path(found) if found else None


def _download(folder: Path, *packages: str, architecture: str) -> list[Path]:
    """Packages and all that they depend on, by an apt that has no other state than in `folder`."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "state" / "status").touch()
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",  # the folder may be closed to others
        "Debug::NoLocking": "true",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "state" / "status",
        "Dir::Cache": folder / "cache",
    }
    apt = [
        "apt-get",
        "--quiet=2",
        *(part for key, value in settings.items() for part in ("-o", f"{key}={value}")),
    ]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "install", "--yes", "--download-only", *packages], check=True)
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def _unpack(packages: list[Path], root: Path) -> None:
    root.mkdir()
    for package in packages:
        subprocess.run(["dpkg-deb", "--extract", package, root], check=True)


def _complete(root: Path) -> None:
    """What no package brings."""
    if not (root / "lib").exists():  # newer Debians have it as a link to usr/lib
        (root / "lib").symlink_to("usr/lib")
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(_CPUINFO, encoding="ascii")


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
