"""The command line itself: options that contradict each other, names that no file has, and signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from e2e.command import EXAMPLE, Run, refused

import bitcc

if TYPE_CHECKING:
    from pathlib import Path

KILLED = """
import os, signal, sys
from bitcc import cli, source
number = int(sys.argv.pop())
source.load = lambda _: os.kill(os.getpid(), number)
cli.main()
"""


def test_it_says_its_version(bitcc_command: Run) -> None:
    done = bitcc_command("--version")
    assert (done.returncode, done.stdout) == (0, f"{bitcc.__version__}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_compilation_that_is_stopped_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, "compile", EXAMPLE, "-o", tmp_path / "b", str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + number
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_names_that_no_file_can_have(bitcc_command: Run, tmp_path: Path) -> None:
    name = tmp_path / ("a" * 300)
    for arguments in (("inspect", name), ("compile", name, "-o", tmp_path / "b")):
        refused(bitcc_command(*arguments), 1, "it cannot be read: File name too long")
    refused(bitcc_command("compile", EXAMPLE, "-o", name), 1, "cannot write there: File name too long")


def test_a_folder_is_no_model(bitcc_command: Run, tmp_path: Path) -> None:
    done = bitcc_command("compile", tmp_path, "-o", tmp_path / "b")
    refused(done, 1, "it is a folder", "hint: give the .onnx file in it")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bench", "--threads", "2"), "--threads is for a bench of a bundle"),
        (("bench", "--dim", "x=1"), "--dim is for a bench of a bundle"),
        (("bench", "bundle", "--quick"), "--quick is for a bench without a bundle"),
        (("bench", "bundle", "--against", "m", "--dim", "x"), "write --dim NAME=SIZE"),
        (("tune", "-o", "tiles", "--key", "board"), "--key belongs to --rpc"),
        (("tune", "-o", "tiles", "--rpc", "board"), "write --rpc HOST:PORT"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    bitcc_command: Run, arguments: tuple[str, ...], words: str
) -> None:
    done = bitcc_command(*arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.replace("│", " ").split())
