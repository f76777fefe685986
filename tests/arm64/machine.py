"""An emulated arm64 machine, to run Python and other programs on."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arm64 import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).parent
_EXAMPLES = HERE.parents[1] / "examples"
# What each core has of the instructions that variants ask for, best first.
CPUS: Mapping[str, tuple[str, ...]] = {
    "cortex-a53": ("neon", "scalar"),
    "cortex-a72": ("neon", "scalar"),
    "neoverse-n1": ("dotprod", "neon", "scalar"),
    "max": ("i8mm", "dotprod", "neon", "scalar"),
}


@dataclass(frozen=True)
class Machine:
    """The folder that `environment` made, with one core of qemu's."""

    folder: Path
    cpu: str

    def run(self, *command: str | Path, **variables: str | Path) -> subprocess.CompletedProcess[bytes]:
        """Run a program that is made for arm64."""
        emulator: list[str | Path] = [environment.emulator(self.folder), "-cpu", self.cpu]
        emulator += ["-L", self.folder / "root"]
        settings = {name: str(value) for name, value in variables.items()}
        plain = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BITCC"))
        }
        return subprocess.run([*emulator, *command], env=plain | settings, capture_output=True, check=False)

    def python(self, release: str, script: str, *arguments: str | Path) -> bytes:
        """What a script that lies beside this file prints, with a release of onnxruntime."""
        interpreter = environment.python(self.folder)
        paths = f"{self.folder / f'onnxruntime-{release}'}:{_EXAMPLES}"
        done = self.run(
            *(interpreter, HERE / script, *arguments),
            PYTHONHOME=self.folder / "root" / "usr",
            PYTHONPATH=paths,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout
