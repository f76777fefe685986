"""``bitcc doctor`` where a package is missing: that is what it is for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bitcc import doctor, targets, tuning
from bitcc.errors import TargetError

if TYPE_CHECKING:
    from pathlib import Path

MODULES = {"apache-tvm": "tvm", "apache-tvm-ffi": "tvm_ffi", "onnx-ir": "onnx_ir"}
WITHOUT = """
import importlib.metadata, sys
package, module = sys.argv[1:]
sys.modules[module] = None  # what cannot be imported
found = importlib.metadata.version
def version(name):
    if name == package:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.version = version
sys.argv = ["bitcc", "doctor", "--json"]
from bitcc.cli import main
main()
"""


@pytest.mark.parametrize("package", doctor.PACKAGES)
def test_a_missing_package_is_named(package: str) -> None:
    command = [sys.executable, "-c", WITHOUT, package, MODULES.get(package, package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert not checks[package]["ok"]
    assert checks[package]["detail"] == "not installed"
    assert checks[package]["hint"]
    assert checks["python"]["ok"]


@pytest.mark.parametrize("target", [(), ("--target", "arm64")])
def test_a_tvm_that_cannot_be_imported_is_told_of(tmp_path: Path, target: tuple[str, ...]) -> None:
    """As with a library that the system has not, or another tvm-ffi."""
    (tmp_path / "tvm.py").write_text("raise OSError('libLLVM.so: no such file')", encoding="utf-8")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "BITCC_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "bitcc.cli", "doctor", "--json", *target]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (1, "")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["import tvm"]["detail"] == "OSError: libLLVM.so: no such file"
    assert "tvm, which builds libraries, cannot be imported: OSError: " in checks["kernel library"]["detail"]
    assert checks["zig"]["ok"]
    assert checks["cache"]["ok"]


def test_nothing_is_tuned_with_a_tvm_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitcc.targets._tune", None)
    monkeypatch.delattr(targets, "_tune", raising=False)  # where it was imported before
    with pytest.raises(TargetError, match="tvm, which builds libraries, cannot be imported"):
        tuning.tune("x86-64", "scalar", seconds=0)
