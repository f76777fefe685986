"""What is said of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitcc import host

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_cpu_has_a_name_where_linux_does_not_tell_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host, "_CPUINFO", tmp_path / "absent")
    assert host.cpu_name()


def test_the_name_is_that_of_the_maker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nprocessor\t: 1\n")
    monkeypatch.setattr(host, "_CPUINFO", cpuinfo)
    assert host.cpu_name() == "Some CPU @ 2 GHz"
