"""The loop that decodes on arm64, counted in its assembly: no emulator can say how fast it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from bitcc import targets
from bitcc.targets import _codegen

TARGET = targets.get("arm64")
_MULTIPLY = ("sdot", "smlal", "smull")
_INSTRUCTION = re.compile(r"^\t([a-z]\S*)\t?(.*)", re.MULTILINE)


@dataclass(frozen=True)
class Bound:
    """Of the loop of a variant, for one 64-byte vector of weights and one token.

    Attributes:
        products: Instructions that multiply, which the layout leaves no choice about.
        ratio: Instructions in all, to the least possible: four loads of weights and one of activations, 16
            times one instruction that takes a crumb out of 16 bytes, and the products.
    """

    products: int
    ratio: float

    @property
    def least(self) -> int:
        return 4 + 1 + 16 + self.products


BOUNDS = {"i8mm": Bound(16, 1.35), "dotprod": Bound(16, 1.35), "neon": Bound(32, 1.5)}
_DOCS = Path(__file__).resolve().parents[2] / "docs" / "arm64.md"


@pytest.mark.parametrize("name", BOUNDS)
def test_decoding_takes_few_instructions_more_than_it_must(name: str) -> None:
    bound = BOUNDS[name]
    variant = next(variant for variant in TARGET.variants if variant.name == name)
    assembly = _codegen.module(TARGET, variant, lambda _: None).inspect_source("asm")
    loop = hottest_loop(assembly, f"bitcc_gemv_{name}")
    assert not [operands for _, operands in loop if "[sp" in operands]  # no spills
    products = sum(name.startswith(_MULTIPLY) for name, _ in loop)
    assert products
    assert products % bound.products == 0
    count = sum(2 if name == "ldp" else 1 for name, _ in loop)  # a pair of loads is two
    each = count / (products // bound.products)
    assert each <= bound.ratio * bound.least
    row = re.search(
        rf"^\| [^|]*`{name}`[^|]* \| (\S+) \| (\S+) \| (\S+) \|$", _DOCS.read_text(), re.MULTILINE
    )
    assert row
    assert row.groups() == (f"{each:.1f}", str(bound.least), f"{each / bound.least:.2f}")


def hottest_loop(assembly: str, symbol: str) -> list[tuple[str, str]]:
    """(name, operands) of the instructions of the loop of one block with the most products."""
    match = re.search(rf"^{symbol}:\n(.*?)^\.Lfunc_end", assembly, re.MULTILINE | re.DOTALL)
    assert match
    bodies = re.findall(r"^(\.LBB\w+):((?:(?!^\.LBB).)*?\tb\.\w+\t\1\n)", match[1], re.MULTILINE | re.DOTALL)
    loops = [_INSTRUCTION.findall(body) for _, body in bodies]
    return max(loops, key=lambda loop: sum(name.startswith(_MULTIPLY) for name, _ in loop))
