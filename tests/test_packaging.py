"""What is installed: a wheel that holds everything, and imports that stay light."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_source_and_nothing_else(wheel: Path) -> None:
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    package = ROOT / "bitcc"
    folders = {package: package} | {ROOT / n: ROOT for n in ("passes", "targets", "runtime_ops")}
    expected = {
        f"bitcc/{path.relative_to(base).as_posix()}"
        for folder, base in folders.items()
        for path in folder.rglob("*")
        if path.suffix in {".py", ".c", ".h"} and "__pycache__" not in path.parts
    }
    assert {n for n in names if not n.endswith("py.typed") and not n.endswith(".clang-format")} == expected


def test_the_wheel_compiles_a_model_without_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    example = ROOT / "examples" / "tiny_lm.onnx"
    code = (
        "import bitcc, sys; "
        f"assert bitcc.__file__.startswith({str(tmp_path)!r}), bitcc.__file__; "
        f"b = bitcc.compile({str(example)!r}, {str(tmp_path / 'bundle')!r}, verify=False); "
        "print(len(b.packed))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "21"


def test_a_library_is_not_built_from_a_wheel_that_is_not_installed(wheel: Path) -> None:
    code = "import bitcc; bitcc.library_path()"
    environment = os.environ | {"PYTHONPATH": str(wheel)}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"bitcc.errors.TargetError: bitcc in `{wheel}/bitcc`: its C sources are not files")


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = "import sys, bitcc.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "onnx", "onnx_ir", "onnxruntime", "tvm", "torch", "rich.table"}
    assert not heavy & set(done.stdout.split())
