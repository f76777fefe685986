"""What LLVM makes of the kernels for AVX-512."""

from __future__ import annotations

import re

import pytest

from bitcc import targets
from bitcc.targets import _codegen

TARGET = targets.get("x86-64")


@pytest.mark.parametrize("name", ["avx512vnni", "avx512vbmi", "avx512zen"])
def test_no_vector_of_few_tokens_is_spilled(name: str) -> None:
    """The stack is not aligned for vectors: across cache lines they cost up to a third of the speed."""
    variant = next(variant for variant in TARGET.variants if variant.name == name)
    module = _codegen.module(TARGET, variant, lambda _: None, families={"gemm_few"})
    assembly = module.inspect_source("asm")
    assert assembly.count("vpdpbusd") > 4 * variant.tiles.few_tokens
    assert not re.findall(r"^.*\(%rsp\).*%zmm.*|^.*%zmm.*\(%rsp\).*", assembly, re.MULTILINE)
