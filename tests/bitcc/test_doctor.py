"""``bitcc doctor`` where a package is missing: that is what it is for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bitcc import doctor

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
