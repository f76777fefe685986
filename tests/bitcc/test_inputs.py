"""What a model is run on where nobody says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bitcc import verify

INPUTS: dict[str, list[int | str | None]] = {
    "x": ["batch", 7, "tokens"],
    "z": ["tokens", None, "batch"],
    "u": [None, "", "past"],
}


@pytest.fixture
def session() -> Any:
    inputs = [SimpleNamespace(name=name, type="tensor(float)", shape=dims) for name, dims in INPUTS.items()]
    return SimpleNamespace(get_inputs=lambda: inputs)


def test_dimensions_have_one_size(session: Any) -> None:
    shapes = {name: array.shape for name, array in verify.random_inputs(session).items()}
    assert shapes == {"x": (4, 7, 4), "z": (4, 4, 4), "u": (4, 4, 4)}


def test_unlike_ones_have_one_size_for_a_name(session: Any) -> None:
    """Those without a name are each another one."""
    feeds = verify.random_inputs(session, unlike=True)
    assert {name: array.shape for name, array in feeds.items()} == {
        "x": (2, 7, 3),
        "z": (3, 4, 2),
        "u": (5, 6, 7),
    }
    assert all(array.dtype == np.float32 for array in feeds.values())
