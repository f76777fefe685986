"""The op library of each target with two of its variants, the portable one and a better one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bitcc import runtime_ops, targets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def library() -> Callable[[str], Path]:
    """Builds it for the target of a name."""

    def build(name: str) -> Path:
        target = targets.get(name)
        two = replace(target, variants=target.variants[-2:])
        sources, include = runtime_ops.sources(), runtime_ops.include_dir()
        return targets.build_library(two, sources=sources, include=include, version="1.2.3")

    return build
