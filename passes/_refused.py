"""Why a rule does not apply: raised by a matcher, recorded by the detector, read by the user."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - not an error: most nodes of a model are not BitLinears
    """A candidate is not proven to be a BitLinear.

    Attributes:
        reason: The first rule that failed, in words.
        fix: What the user can do about it, in words; empty if nothing is known.
    """

    def __init__(self, reason: str, *, fix: str = "") -> None:
        self.reason = reason
        self.fix = fix
        super().__init__(reason)
