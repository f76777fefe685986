"""The description of the passes is complete."""

from __future__ import annotations

import re
from pathlib import Path

from bitcc import passes


def test_every_file_is_in_the_order_of_the_flow_once() -> None:
    described = (passes.__doc__ or "").partition("The files, in the order of the flow")[2]
    named = re.findall(r"``(\w+)``", described)
    folder = Path(str(passes.__file__)).parent
    assert sorted(named) == sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
