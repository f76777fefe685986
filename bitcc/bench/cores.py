"""A core for each thread that is timed.

Left to the scheduler, two threads that were asleep may share one CPU for seconds while another idles.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def find() -> list[int]:
    """A CPU of each core that this thread may use; none where the system does not say."""
    found: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ():
        siblings = Path(_SIBLINGS.format(cpu))
        found.setdefault(siblings.read_text(encoding="ascii") if siblings.exists() else str(cpu), cpu)
    return list(found.values())


@contextmanager
def first() -> Iterator[None]:
    """The calling thread runs on the first core meanwhile; threads that it starts do, too."""
    free = find()
    if not free:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {free[0]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
