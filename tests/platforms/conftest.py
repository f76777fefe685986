"""The op library of each target with two of its variants, the portable one and a better one, and one GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bitcc import runtime_ops, targets
from bitcc.targets import _cuda_compiler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def library() -> Callable[[str], Path]:
    """Builds it for the target of a name."""

    def build(name: str) -> Path:
        target = targets.get(name)
        if target.gpus and _cuda_compiler.find() is None:
            pytest.skip(f"there is no compiler for CUDA: {_cuda_compiler.HINT}")
        two = replace(target, variants=target.variants[-2:], gpus=target.gpus[:1])
        sources = runtime_ops.sources(cuda=bool(target.gpus))
        return targets.build_library(two, sources=sources, include=runtime_ops.include_dir(), version="1.2.3")

    return build
