"""Run one compiled bundle in old and new releases of onnxruntime: one library binary for all.

    python tests/runtimes/matrix.py [MODEL] [--releases 1.17.0,1.31.1]

Each release gets an environment of its own. In each the bundle runs with the library and without it, on the
same inputs; both must give the numbers that this environment's onnxruntime gives. Needs the package index.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

import bitcc
from bitcc import verify

if TYPE_CHECKING:
    from bitcc.bundle import Bundle

RELEASES = ("1.17.0", "1.20.0", "1.24.1", "1.27.0", "1.31.1")
_HERE = Path(__file__).resolve().parent
_EXAMPLE = _HERE.parent.parent / "examples" / "tiny_lm.onnx"
_TOLERANCE = 1e-2  # releases order their float sums differently, which can move an activation code


def main() -> int:
    """Run the matrix; the exit code says whether every release agreed."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model", nargs="?", type=Path, default=_EXAMPLE)
    arguments.add_argument("--releases", default=",".join(RELEASES))
    options = arguments.parse_args()
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = bitcc.compile(options.model, folder / "bundle", verify=False)
        session = bitcc.session(bundle)
        feeds = verify.random_inputs(session)
        np.savez(folder / "feeds.npz", **feeds)
        want = session.run(None, feeds)
        good = True
        for release in options.releases.split(","):
            for kind in ("library", "body"):
                text, passed = _run(folder, bundle, release, kind, want)
                good &= passed
                console.print(f"onnxruntime {release:8} {kind:8} {text}")
    return 0 if good else 1


def _run(folder: Path, bundle: Bundle, release: str, kind: str, want: list[np.ndarray]) -> tuple[str, bool]:
    python = _environment(folder, release)
    output = folder / f"{release}-{kind}.npz"
    library = [str(bundle.path / bundle.manifest.targets[0].library)] if kind == "library" else []
    command = [python, _HERE / "run_model.py", bundle.model, folder / "feeds.npz", output, *library]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed without a word"])[-1], False
    with np.load(output) as data:
        got = [data[f"arr_{i}"] for i in range(len(want))]
    error = verify.distance(got, want)
    return f"largest difference {error:.1e} of max|y|", error <= _TOLERANCE


def _environment(folder: Path, release: str) -> Path:
    """A new environment with that onnxruntime; those before 1.19 were built for numpy 1."""
    home = folder / release
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        old = tuple(map(int, release.split(".")[:2])) < (1, 19)
        packages = [f"onnxruntime=={release}", "numpy<2" if old else "numpy"]
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *packages], check=True, stderr=subprocess.DEVNULL
        )
    return python


if __name__ == "__main__":
    sys.exit(main())
