"""The HTML report, as a browser shows it."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from e2e.command import EXAMPLE

from bitcc import html_report
from bitcc.facts import KEPT, LayerFacts

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
    assert any(text.startswith("kept: the weights are dense") for text in parser.texts)
    assert parser.addresses == []


@pytest.mark.skipif(_CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_lays_the_page_out(report: Path, tmp_path: Path) -> None:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command = [str(_CHROMIUM), *flags, f"--user-data-dir={tmp_path}", "--dump-dom", report.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("<tr>") == 22 + 1 + 2
    assert 'class="minus" style="width:' in done.stdout


def test_a_page_that_cannot_be_written(bitcc_command: Run, tmp_path: Path) -> None:
    done = bitcc_command("inspect", EXAMPLE, "--html", tmp_path / "no" / "report.html")
    assert done.returncode == 1
    assert "cannot write" in done.stderr


def test_names_are_escaped() -> None:
    layer = LayerFacts("<script>", "MatMul", 1, 1, "dense", "", "", KEPT, "a < b", 0, 0)
    page = html_report.page("<b>", [layer])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
