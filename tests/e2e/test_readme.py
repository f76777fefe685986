"""What the README shows in Python runs as it stands, from top to bottom."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from e2e.command import EXAMPLE

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    shown = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    everywhere = [code for code in shown if "CUDAExecutionProvider" not in code]
    assert len(everywhere) == len(shown) - 1
    shutil.copy(EXAMPLE, tmp_path / "model.onnx")
    program = "\n".join([*everywhere, "print(session.run(None, feeds)[0].shape)"])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, *layers, shape = done.stdout.splitlines()
    assert first.startswith("node_linear packed")
    assert len(layers) == 21
    assert shape == "(1, 10, 256)"
