"""An emulated core that counts the instructions it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from arm64 import environment
from arm64.machine import Machine

HERE = Path(__file__).parent
_INTERFACES = range(1, 10)  # of qemu to its plugins: no release takes all
_GGML_SOURCES = ("ggml-quants.c", "ggml-cpu/quants.c", "ggml-cpu/arch/arm/quants.c")
_GGML_FLAGS = (
    *("-shared", "-fPIC", "-O3", "-DNDEBUG", "-D_GNU_SOURCE"),
    *("-ffunction-sections", "-Wl,--gc-sections"),
)


@dataclass(frozen=True)
class Core:
    """A core to count on.

    Attributes:
        variant: Ours that it takes.
        qemu: Its name there.
        zig: The name of one like it for the C compiler.
    """

    variant: str
    qemu: str
    zig: str


CORES = (
    Core("neon", "cortex-a72", "cortex_a72"),
    Core("dotprod", "neoverse-n1", "neoverse_n1"),
    Core("i8mm", "max,sme=off,sve-max-vq=1", "cortex_x2"),  # SVE of 128 bits, as Cortex-X2 and Neoverse N2
)


@dataclass(frozen=True)
class Emulator:
    """Emulated cores, and a folder for what is made for them.

    Attributes:
        machine: The environment of `make test-arm64`.
        folder: With the cases, and ggml's sources where they are wanted.
    """

    machine: Path
    folder: Path

    def build_plugin(self) -> None:
        """Compile the plugin for the qemu that is here.

        Raises:
            SystemExit: it takes none.
        """
        for interface in _INTERFACES:
            plugin = ("-shared", "-fPIC", "-O2", f"-DINTERFACE={interface}", HERE / "counter.c")
            self._compile(*plugin, "-o", self.folder / "counter.so")
            if self._python(CORES[0], "-c", "").returncode == 0 and self._counts.exists():
                return
        sys.exit(f"{environment.emulator(self.machine)} takes no plugins: install qemu-user")

    def build_ggml(self, core: Core) -> None:
        """Compile ggml's kernels for a core, with a whole layer around them."""
        source = self.folder / "ggml"
        folders = (source / "include", source / "src", source / "src" / "ggml-cpu")
        self._compile(
            *("-target", "aarch64-linux-gnu.2.34", f"-mcpu={core.zig}", *_GGML_FLAGS),
            f"-Wl,--version-script={HERE / 'ggml.map'}",
            *(f"-I{folder}" for folder in folders),
            *(HERE / "ggml.c", *(source / "src" / name for name in _GGML_SOURCES)),
            *("-lm", "-o", self.folder / "ggml.so"),
        )

    def count(self, core: Core, library: Path) -> tuple[dict[str, str], list[int]]:
        """Run the cases: errors by case, and of the others the instructions of each run."""
        done = self._python(core, HERE / "guest.py", self.folder, library)
        if done.returncode:
            sys.exit(done.stderr.decode())
        errors: dict[str, str] = json.loads(done.stdout)
        marks = [int(line) for line in self._counts.read_text(encoding="ascii").splitlines()]
        return errors, [after - before for before, after in zip(marks[::2], marks[1::2], strict=True)]

    @property
    def _counts(self) -> Path:
        return self.folder / "counts"

    def _python(self, core: Core, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        """Python on the core, with the plugin."""
        return Machine(self.machine, core.qemu).run(
            environment.python(self.machine),
            *arguments,
            PYTHONHOME=self.machine / "root" / "usr",
            PYTHONPATH=self.machine / f"onnxruntime-{environment.RELEASES[-1]}",
            PYTHONHASHSEED="0",
            QEMU_PLUGIN=f"file={self.folder / 'counter.so'},out={self._counts}",
        )

    def _compile(self, *arguments: str | Path) -> None:
        caches = {f"ZIG_{which}_CACHE_DIR": str(self.machine / "zig") for which in ("GLOBAL", "LOCAL")}
        command = [sys.executable, "-m", "ziglang", "cc", *arguments]
        subprocess.run(command, env=os.environ | caches, check=True)  # noqa: S603 - our own command
