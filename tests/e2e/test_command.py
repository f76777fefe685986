"""The command line itself: options that contradict each other, names that no file has, and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import models
import onnx
import pytest
from e2e.command import EXAMPLE, Run, refused

import bitcc
from bitcc import targets

KILLED = """
import os, signal, sys
from bitcc import cli, source
number = int(sys.argv.pop())
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for jobs in the background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
source.load = lambda _: os.kill(os.getpid(), number)
cli.main()
"""
HUNG_UP = """
import os, signal, sys
from bitcc import cli, source
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
source.load = lambda _: (os.kill(os.getpid(), signal.SIGHUP), sys.exit(7))
cli.main()
"""
BUNDLE_OPTIONS = [
    ("--target", "nonsense"),
    ("--min-weights", "0"),
    ("--numerics", "faithful"),
    ("--weight-format", "t5"),
]


def test_it_says_its_version(bitcc_command: Run) -> None:
    done = bitcc_command("--version")
    assert (done.returncode, done.stdout) == (0, f"{bitcc.__version__}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_compilation_that_is_stopped_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, "compile", EXAMPLE, "-o", tmp_path / "b", str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + number
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_that_is_closed_stops_nothing_under_nohup(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HUNG_UP, "compile", EXAMPLE, "-o", tmp_path / "b"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 7


def test_into_a_pipe_no_line_is_wrapped(bitcc_command: Run) -> None:
    lines = bitcc_command("targets").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:8]] == list(targets.TARGETS)
    assert "avx512zen, avx512vbmi, avx512vnni, avxvnni, avx2, scalar" in lines[7]


def test_names_that_no_file_can_have(bitcc_command: Run, tmp_path: Path) -> None:
    name = tmp_path / ("a" * 300)
    for arguments in (("inspect", name), ("compile", name, "-o", tmp_path / "b")):
        refused(bitcc_command(*arguments), 1, "it cannot be read: File name too long")
    refused(bitcc_command("compile", EXAMPLE, "-o", name), 1, "cannot write there: File name too long")


def test_names_in_a_model_are_no_commands_to_a_terminal(
    bitcc_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.build("dynamo")
    for node in model.graph.node:
        node.name = f"[/red]\x1b[31m{node.name}"
    onnx.save(model, tmp_path / "m.onnx")
    done = bitcc_command("compile", tmp_path / "m.onnx", "-o", tmp_path / "b", "--no-verify")
    assert done.returncode == 0, done.stderr
    assert "[/red]\\x1b[31m" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, with a line of progress
    done = bitcc_command("inspect", tmp_path / "m.onnx")
    assert done.returncode == 0, done.stderr
    monkeypatch.delenv("FORCE_COLOR")
    del model.graph.initializer[:]
    onnx.save(model, tmp_path / "m.onnx")
    refused(bitcc_command("inspect", tmp_path / "m.onnx"), 1, "[/red]\\x1b[31m")


def test_a_page_of_a_model_whose_name_is_no_text(bitcc_command: Run, tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"m\xff.onnx")
    onnx.save(models.build("dynamo"), name)
    done = bitcc_command("inspect", name, "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "<h1>m?.onnx</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    done = bitcc_command("compile", name, "-o", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert "verification not run: onnxruntime cannot load" in done.stdout
    told = " ".join(done.stdout.split())  # lines end where a terminal would
    assert "onnxruntime takes no path that is not UTF-8" in told
    refused(bitcc_command("bench", tmp_path / "b", "--against", name), 1, "takes no path that is not UTF-8")


@pytest.mark.parametrize(
    "arguments",
    [
        ("compile", "none", "-o", "b"),
        ("inspect", "none"),
        ("inspect", "."),
        ("inspect", EXAMPLE, "--html", "none/page"),
        ("verify", "none"),
        ("bench", "none"),
        ("bench", "--target", "none"),
        ("tune", "-o", "none/tiles"),
        ("doctor", "--target", "none"),
    ],
)
def test_an_error_is_json_where_that_is_asked_for(
    bitcc_command: Run, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bitcc_command(*arguments, "--json")
    refused(done, 1)
    said = json.loads(done.stdout)
    assert done.stderr.startswith(f"error: {said.pop('error')}\n")
    assert done.stderr.endswith(f"hint: {said.pop('hint')}\n") or "hint: " not in done.stderr
    assert not said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("targets",), ("targets", "--json"), ("inspect", EXAMPLE)])
def test_what_cannot_be_printed_is_an_error(arguments: tuple[str, ...]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no device that is always full")
    command = [sys.executable, "-m", "bitcc.cli", *arguments]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: cannot print: No space left on device\n")


def test_without_a_stdout_commands_do_their_work(tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "bitcc.cli"]
    page = tmp_path / "page.html"
    done = subprocess.run(
        [*command, "inspect", EXAMPLE, "--html", page], stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert page.read_text(encoding="utf-8").endswith("</html>\n")


def test_a_folder_is_no_model(bitcc_command: Run, tmp_path: Path) -> None:
    done = bitcc_command("compile", tmp_path, "-o", tmp_path / "b")
    refused(done, 1, "it is a folder", "hint: give the .onnx file in it")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bench", "--threads", "2"), "--threads is for a bench of a bundle"),
        (("bench", "--dim", "x=1"), "--dim is for a bench of a bundle"),
        (("bench", "--inputs", "x.npz"), "--inputs is for a bench of a bundle"),
        (("bench", "bundle", "--inputs", "x.npz", "--dim", "x=1"), "--dim is for random inputs"),
        (("bench", "bundle", "--dim", "x=²"), "write --dim NAME=SIZE"),
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
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", BUNDLE_OPTIONS)
def test_options_of_a_compilation_are_refused_for_a_bundle(
    bitcc_command: Run, example_bundle: Path, arguments: tuple[str, ...]
) -> None:
    done = bitcc_command("inspect", example_bundle, *arguments)
    assert done.returncode == 2
    assert f"{arguments[0]} is for a model" in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bench", "--dim", "x=1", "--json"), "--dim is for a bench of a bundle"),
        (("inspect", "m", "--json", "--nonsense"), "No such option: --nonsense"),
        (("inspect", "--json"), "Missing "),
        (("nothing", "--json"), "No such command 'nothing'"),
        (("--nonsense", "inspect", "m", "--json"), "No such option: --nonsense"),
        (("compile", "m", "-o", "b", "--min-weights", "x", "--json"), "Invalid value for '--min-weights'"),
    ],
)
def test_wrong_usage_is_json_where_that_is_asked_for(
    bitcc_command: Run, arguments: tuple[str, ...], words: str
) -> None:
    done = bitcc_command(*arguments)
    assert done.returncode == 2
    assert "Usage: " in done.stderr
    assert words in json.loads(done.stdout)["error"]
