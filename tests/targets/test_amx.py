"""The tile instructions of the AMX kernels: what TVM makes of them, and what the emulator forbids.

That `gemm` computes the right numbers is in test_kernels, on the CPU's tiles and on the emulated ones.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from emulation import amx

from bitcc import targets
from bitcc.errors import TargetError
from bitcc.targets import Walk, _codegen, _tune, _x86_amx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Config = NDArray[np.uint8]

# Where things are in the 64 bytes of a tile configuration.
PALETTE, START_ROW, RESERVED, ROW_BYTES, ROWS = 0, 1, 2, 16, 48
NONE = np.zeros(64, np.uint8)


def config(**changed: int) -> Config:
    """All tiles as large as they can be, but for bytes `at_<offset>`."""
    out = NONE.copy()
    out[PALETTE], out[ROW_BYTES : ROW_BYTES + 16 : 2], out[ROWS : ROWS + 8] = 1, 64, 16
    for name, value in changed.items():
        out[int(name.removeprefix("at_"))] = value
    return out


class Tiles:
    """The emulated tiles of this thread, and the kernels that use them."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.emulated_fault.restype = ctypes.c_char_p
        self.release()
        self.fault()

    def fault(self) -> str | None:
        """The first since the last call."""
        said = self._library.emulated_fault()
        return said.decode() if said else None

    def release(self) -> None:
        self._library.emulated_tilerelease()

    def load(self, configuration: Config) -> None:
        self._library.emulated_ldtilecfg(configuration.ctypes.data_as(ctypes.c_void_p))

    def read(self) -> Config:
        out = np.full(64, 99, np.uint8)
        self._library.emulated_sttilecfg(out.ctypes.data_as(ctypes.c_void_p))
        return out

    def multiply(self, sums: int, activations: int, weights: int) -> None:
        self._library.emulated_tdpbsud(*map(ctypes.c_uint8, (sums, activations, weights)))


@pytest.fixture
def tiles(build: Callable[..., Path]) -> Tiles:
    return Tiles(build(amx.EMULATED))


only_emulated = pytest.mark.parametrize(
    "kernels", [(amx.EMULATED, amx.EMULATED.variants[0])], indirect=True, ids=["amx_emulated"]
)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (config(at_0=2), "ldtilecfg: palette"),
        (config(at_1=1), "ldtilecfg: start row"),
        (config(at_2=1), "ldtilecfg: reserved bytes"),
        (config(at_40=1), "ldtilecfg: reserved bytes"),
        (config(at_63=1), "ldtilecfg: reserved bytes"),
        (config(at_16=65), "ldtilecfg: bytes of a row"),
        (config(at_17=1), "ldtilecfg: bytes of a row"),
        (config(at_55=17), "ldtilecfg: rows"),
        (config(at_48=0), "ldtilecfg: rows without bytes, or bytes without rows"),
        (config(at_16=0), "ldtilecfg: rows without bytes, or bytes without rows"),
    ],
)
def test_a_configuration_that_the_cpu_would_refuse_is_refused(
    tiles: Tiles, wrong: Config, fault: str
) -> None:
    tiles.load(wrong)
    assert tiles.fault() == fault
    np.testing.assert_array_equal(tiles.read(), NONE)


@pytest.mark.parametrize(
    ("configuration", "operands", "fault"),
    [
        (NONE, (0, 4, 6), "no configuration"),
        (config(), (0, 4, 8), "no such tile"),
        (config(at_52=0, at_24=0), (0, 4, 6), "a tile without rows"),
        (config(), (0, 4, 4), "tdpbsud: the same tile twice"),
        (config(), (4, 4, 6), "tdpbsud: the same tile twice"),
        (config(at_52=15), (0, 4, 6), "tdpbsud: shapes"),  # tokens of the activations and of the sums
        (config(at_54=15), (0, 4, 6), "tdpbsud: shapes"),  # columns of the activations and of the weights
        (config(at_28=60), (0, 4, 6), "tdpbsud: shapes"),  # rows of the weights and of the sums
        (config(at_24=62), (0, 4, 6), "tdpbsud: shapes"),  # no whole fours
    ],
)
def test_a_product_that_the_cpu_would_refuse_is_refused(
    tiles: Tiles, configuration: Config, operands: tuple[int, int, int], fault: str
) -> None:
    tiles.load(configuration)
    assert tiles.fault() is None
    tiles.multiply(*operands)
    assert tiles.fault() == fault


@only_emulated
@pytest.mark.parametrize("left", [NONE, config(at_54=15)], ids=["none", "another"])
def test_gemm_without_its_configuration_is_found(kernels: Any, tiles: Tiles, left: Config) -> None:
    tiles.load(left)
    q, panel, acc = np.zeros((16, 64), np.int8), np.zeros(1024, np.uint8), np.zeros((16, 16), np.int32)
    with pytest.raises(AssertionError, match=r"no configuration|shapes"):
        kernels.call("gemm", 0, q, panel, acc, 64, 4, 1, 16)
    tiles.release()


@only_emulated
@pytest.mark.parametrize("found", [NONE, config(), config(at_48=7, at_52=7)], ids=["none", "full", "another"])
def test_the_tiles_are_left_as_they_were_found(kernels: Any, tiles: Tiles, found: Config) -> None:
    tiles.load(found)
    (state,) = kernels.call("gemm_begin", 0, np.zeros(64, np.uint8))
    np.testing.assert_array_equal(tiles.read(), config())
    kernels.call("gemm_end", 0, state.read("uint8"))
    np.testing.assert_array_equal(tiles.read(), found)


@pytest.fixture(scope="module")
def assembly() -> str:
    """The code of `gemm` for the CPU's own tiles."""
    module = _codegen.module(targets.get("x86-64"), _x86_amx.VARIANT, lambda _: None)
    text = module.inspect_source("asm")
    return text[text.index("\nbitcc_gemm_amx:") : text.index(".size\tbitcc_gemm_amx,")]


def test_the_products_are_of_signed_activations_and_unsigned_weights(assembly: str) -> None:
    products = set(re.findall(r"tdpbsud\t%tmm(\d), %tmm(\d), %tmm(\d)", assembly))
    assert products == {("7", "6", str(sums)) for sums in range(2)}
    assert set(re.findall(r"tdp\w+", assembly)) == {"tdpbsud"}


def test_the_inner_loops_do_nothing_but_load_and_multiply(assembly: str) -> None:
    blocks = re.findall(r"\n(\.LBB\d+_\d+):((?:(?!\n\.LBB)[\s\S])*?)\tjne\t(?=\1\n)", assembly)
    loops = [body for _, body in blocks if "tdpbsud" in body]
    loads_of_a_product = set()
    for loop in loops:
        assert not re.search("rsp.*tmm|tilestored|call", loop)  # no tile is spilled
        sums = set(re.findall(r"tdpbsud.*(%tmm\d)$", loop, re.MULTILINE))
        loads_of_a_product.add((len(sums), loop.count("tileloadd") / loop.count("tdpbsud")))
    assert loads_of_a_product == {(2, 1.5), (1, 2)}


def test_a_walk_with_more_tiles_than_registers_is_refused() -> None:
    tiles = _x86_amx.VARIANT.tiles
    for more in (replace(tiles, gemm=Walk(7)), replace(tiles, gemm_tokens=32)):
        with pytest.raises(TargetError, match="at most 6 and 16 fit its registers"):
            _x86_amx.TileGemm()(None, None, more)  # type: ignore[arg-type]


def test_tuning_tries_what_fits_the_registers() -> None:
    variant = _x86_amx.VARIANT
    options = [o for axis in _tune.AXES["gemm"] for o in _tune.buildable(variant, axis(variant.tiles))]
    assert {option.gemm.tiles for option in options} == {1, 2, 4}
    assert {option.gemm_tokens for option in options} == {16}
