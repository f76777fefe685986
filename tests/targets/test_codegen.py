"""Kernels that two variants have in common are in a library once."""

from __future__ import annotations

from dataclasses import replace

from bitcc import targets
from bitcc.targets import _codegen

TARGET = targets.get("x86-64")
BASE = next(variant for variant in TARGET.variants if variant.name == "avx512vbmi")
FAMILIES = {family for family, _ in BASE.kernels}


def shared(variant: targets.Variant) -> set[str]:
    """The families that a variant takes from the one that it was made of."""
    found = _codegen.shared([BASE, variant])
    assert set(found.values()) <= {BASE.symbol(family) for family in FAMILIES}
    return {family for family in FAMILIES if variant.symbol(family) in found}


def test_the_same_kernels_are_shared() -> None:
    assert shared(replace(BASE, name="other")) == FAMILIES


def test_what_tiles_change_is_not() -> None:
    tiles = replace(BASE.tiles, gemv=targets.Walk(2), few_blocks=7)
    assert FAMILIES - shared(replace(BASE, name="other", tiles=tiles)) == {"gemv"}


def test_what_is_written_for_other_instructions_is_not() -> None:
    assert not shared(replace(BASE, name="other", mattr=(*BASE.mattr, "+avx512bf16")))


def test_a_third_takes_what_the_first_has() -> None:
    second, third = replace(BASE, name="second"), replace(BASE, name="third")
    found = _codegen.shared([BASE, second, third])
    assert all(found[third.symbol(family)] == BASE.symbol(family) for family in FAMILIES)


def test_the_variant_for_zen_has_walks_of_its_own_alone() -> None:
    taken = _codegen.shared(TARGET.variants)
    own = {family for family in FAMILIES if BASE.symbol(family) not in taken}
    assert own == {"gemv", "gemv_t5", "gemm_few", "gemm_few_t5"}
