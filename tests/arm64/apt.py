"""An apt with all its state in one folder: it downloads, for any architecture, and installs nothing."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Apt:
    """Where it keeps what it knows, and for which machine it looks.

    Attributes:
        folder: Made by `update`.
        architecture: As Debian calls it.
        source: A line of sources.list; empty for those of this machine.
    """

    folder: Path
    architecture: str
    source: str = ""

    def update(self) -> None:
        """Read the lists of packages."""
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "state" / "status").touch()
        (self.folder / "sources.list").write_text(self.source, encoding="ascii")
        self._run("apt-get", "update")

    def download(self, *packages: str) -> list[Path]:
        """Packages with all that they depend on."""
        self._run("apt-get", "install", "--yes", "--download-only", *packages)
        return sorted((self.folder / "cache" / "archives").glob("*.deb"))

    def download_alone(self, pattern: str) -> list[Path]:
        """The last package whose name matches, without what it depends on; none if there is none."""
        found = self._run("apt-cache", "search", "--names-only", f"^{pattern}$").splitlines()
        if not found:
            return []
        name = max(line.split()[0] for line in found)
        self._run("apt-get", "download", name)
        return list(self.folder.glob(f"{name}_*.deb"))

    def mirror(self) -> str:
        """Where Debian is downloaded from; empty if this is another system."""
        fields = ("Created-By: Packages", "Label: Debian", "Component: main")
        found = self._run("apt-get", "indextargets", "--format", "$(REPO_URI)", *fields)
        return found.splitlines()[0] if found else ""

    def _run(self, program: str, *arguments: str) -> str:
        settings = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",  # the folder may be closed to others
            "Debug::NoLocking": "true",
            "Dir::State": self.folder / "state",
            "Dir::State::status": self.folder / "state" / "status",
            "Dir::Cache": self.folder / "cache",
        }
        if self.source:
            settings |= {
                "Dir::Etc::SourceList": self.folder / "sources.list",
                "Dir::Etc::SourceParts": "/dev/null",
            }
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        command = [program, "--quiet=2", *options, *arguments]
        return subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.PIPE, text=True).stdout


def unpack(packages: list[Path], root: Path) -> None:
    """Write the files of packages below `root`."""
    root.mkdir(exist_ok=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
