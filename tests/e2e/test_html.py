"""The HTML report, as a browser shows it."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from e2e.command import EXAMPLE, refused

from bitcc import html_report
from bitcc.cli import terminal
from bitcc.errors import BitccError
from bitcc.facts import LayerFacts

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.command import Run

_CHROMIUM = shutil.which("chromium")


class _Text(HTMLParser):
    """The texts of a page, and the addresses that it would load something from."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.addresses: list[str] = []

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.addresses += [str(value) for name, value in attrs if name in {"src", "href"}]


@pytest.fixture(scope="module")
def report(bitcc_command: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("html") / "report.html"
    done = bitcc_command("inspect", EXAMPLE, "--html", page)
    assert done.returncode == 0, done.stderr
    return page


def test_the_page_tells_of_every_layer_and_loads_nothing(report: Path) -> None:
    parser = _Text()
    parser.feed(report.read_text(encoding="utf-8"))
    assert "21 of 22 layers packed." in parser.texts
    assert sum(text.startswith("node_linear") for text in parser.texts) == 22
    assert sum(text.startswith("the weights are dense") for text in parser.texts) == 1
    assert parser.texts.count("1.58") > 10  # bits a weight
    assert sum(text.endswith("int8, per token") for text in parser.texts) == 21
    assert parser.texts.count("RMS norm, int8, per token") == 15
    assert sum(text.startswith("ternary, tensor scale, ") for text in parser.texts) == 21
    assert parser.addresses == []


_MEASURE = """<script>
const svgs = [...document.querySelectorAll("#layers svg")].map(svg => svg.getBoundingClientRect());
const bars = [...document.querySelectorAll("#layers rect")].map(r => r.getBoundingClientRect());
document.title = JSON.stringify({
  rows: document.querySelectorAll("#layers tr").length, svgs: svgs.length,
  sizes: [...new Set(svgs.map(box => box.width + "x" + box.height))],
  inside: bars.every(bar => svgs.some(box => bar.left >= box.left - 1 && bar.right <= box.right + 1
                                             && bar.top >= box.top - 1 && bar.bottom <= box.bottom + 1)),
  requests: performance.getEntriesByType("resource").length, hit: "hit" in window,
});
</script>"""


def _in_browser(page: Path, folder: Path) -> dict[str, Any]:
    """What a browser measures on the page once it is laid out."""
    measured = folder / "measured.html"
    measured.write_text(page.read_text(encoding="utf-8") + _MEASURE, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command = [str(_CHROMIUM), *flags, f"--user-data-dir={folder}", "--dump-dom", measured.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    return dict(json.loads(title[1]))


@pytest.mark.skipif(_CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_lays_the_page_out(report: Path, tmp_path: Path) -> None:
    assert _in_browser(report, tmp_path) == {
        "rows": 22 + 1,
        "svgs": 22,
        "sizes": ["128x32"],
        "inside": True,
        "requests": 0,
        "hit": False,
    }


_SCRIPT = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"


@pytest.mark.skipif(_CHROMIUM is None, reason="chromium is not installed")
def test_a_name_in_a_hostile_model_is_no_code(bitcc_command: Run, tmp_path: Path) -> None:
    model = onnx.load(EXAMPLE)
    for node in model.graph.node:
        node.name = f"{_SCRIPT}{node.name}"
    onnx.save(model, tmp_path / "<script>window.hit=1<")
    page = tmp_path / "report.html"
    done = bitcc_command("inspect", tmp_path / "<script>window.hit=1<", "--html", page)
    assert done.returncode == 0, done.stderr
    measured = _in_browser(page, tmp_path)
    assert (measured["rows"], measured["requests"], measured["hit"]) == (23, 0, False)


def test_a_page_that_cannot_be_written(bitcc_command: Run, tmp_path: Path) -> None:
    done = bitcc_command("inspect", EXAMPLE, "--html", tmp_path / "no" / "report.html")
    refused(done, 1, "cannot write: No such file or directory")


@pytest.mark.parametrize("name", ["m.onnx", "m.onnx.data", "link", "notes.html"])
def test_a_page_replaces_pages_only(bitcc_command: Run, tmp_path: Path, name: str) -> None:
    model = onnx.load(EXAMPLE)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data")
    (tmp_path / "link").symlink_to("m.onnx")
    (tmp_path / "notes.html").write_text("<!doctype html>\n<title>notes</title>\n", encoding="utf-8")
    before = (tmp_path / name).read_bytes()
    done = bitcc_command("inspect", tmp_path / "m.onnx", "--html", tmp_path / name)
    refused(done, 1, "it exists and is not a page of bitcc, so it is not replaced", "hint: ")
    assert (tmp_path / name).read_bytes() == before


def test_an_older_page_is_replaced(bitcc_command: Run, report: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for older in (html_report.page("older", []), ""):
        page.write_text(older, encoding="utf-8")
        assert bitcc_command("inspect", EXAMPLE, "--html", page).returncode == 0
        assert page.read_bytes() == report.read_bytes()


def test_half_a_file_does_not_stay(tmp_path: Path) -> None:
    """Though there was another one before: that is lost, and a half would be taken for a whole."""
    page = tmp_path / "page.html"
    page.write_text("older", encoding="utf-8")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(BitccError, match="cannot write: File too large"):
            terminal.write(page, "x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_words_are_escaped() -> None:
    words = {"name", "op", "scheme", "scope", "activation", "status", "reason", "fix", "nearest", "numerics"}
    dense = LayerFacts(
        **dict.fromkeys(words, "<script>"),
        N=1,
        K=1,
        bytes_before=0,
        bytes_after=0,
        levels=(0, 1),
        shares=(0.5, 0.5),
    )
    for layer in (dense, replace(dense, zeros=0.5)):
        page = html_report.page("<script>", [layer])
        assert "<script>" not in page
        assert page.count("&lt;script&gt;") >= 8
