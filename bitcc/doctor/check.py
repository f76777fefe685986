"""What is said of one thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        ok: Whether it is fine.
        detail: What was found.
        hint: What to do if it is not fine.
    """

    name: str
    ok: bool
    detail: str
    hint: str = ""
