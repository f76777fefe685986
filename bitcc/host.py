"""The machine that this process runs on."""

from __future__ import annotations

import platform
import re
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """The CPU in the words of its maker, as far as the system tells."""
    found = None
    if _CPUINFO.is_file():
        found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", _CPUINFO.read_text(), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
