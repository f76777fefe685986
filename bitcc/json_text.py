"""JSON that every reader takes: in ASCII, and without the numbers and letters that some refuse."""

from __future__ import annotations

import json
import math
from typing import Any


def dumps(data: Any) -> str:
    """The text of plain data; the same data gives the same bytes.

    NaN and infinity become null, and half of a surrogate pair, as in names of files that are not UTF-8, "?".
    """
    return json.dumps(_plain(data), indent=2, allow_nan=False)


def loads(text: str) -> Any:
    """What the text says.

    Raises:
        ValueError: it is not JSON; ``NaN`` and ``Infinity`` are not.
    """
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {_plain(key): _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    if isinstance(data, str):
        return data.encode("utf-8", "replace").decode()
    return None if isinstance(data, float) and not math.isfinite(data) else data
