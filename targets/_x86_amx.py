"""AMX-INT8: `tdpbsud` on tiles of 16 rows of 64 bytes; everything but `gemm` is as on AVX512-VBMI.

A tile of activations is 16 tokens of 64 columns, as they lie in memory. A tile of unpacked weights is 16
lines of the panel, four columns of 16 rows in each, which is the order that `tdpbsud` wants.

Few tile registers are used: beside a busy hyperthread loads of tiles wait the longer, the more registers are
in use. A product need not wait for the last one of its sum, so that few sums are no loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bitcc.errors import TargetError
from bitcc.targets import _x86_avx512vbmi
from bitcc.targets._base import Variant, Walk
from bitcc.targets._dot import UNPACKED_BYTES, VECTOR_COLUMNS
from bitcc.targets._matmul import walk_tiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitcc.targets._base import Tiles
    from bitcc.targets._tir import Tir

    # Writes one tile instruction: the end of its LLVM name, and its operands.
    Instruction = Callable[..., None]

TOKENS = 16  # of a tile
_COLUMNS = 64
_LINE = 64  # bytes of a row of any tile
_STEP = _COLUMNS // VECTOR_COLUMNS  # vectors of a tile of weights

# Numbers of tile registers; those before are sums, one for each tile of weights.
_ACTIVATIONS, _WEIGHTS = 6, 7

_CONFIG_BYTES = 64
_PALETTE, _ROW_BYTES_AT, _ROWS_AT = 1, 16, 48
_TILES = 8


def hardware(t: Tir, name: str, *operands: Any) -> None:
    """Write the instruction itself."""
    t.instruction(f"llvm.x86.{name}", *operands)


@dataclass(frozen=True)
class Begin:
    """Writes `gemm_begin`: all tiles get 16 rows of 64 bytes.

    Other code of the process may have configured the tiles of this thread for itself: onnxruntime does so,
    in some versions once and for all, in others it looks at a part of the configuration. So neither
    our configuration nor none may be left behind, only the one that was there: `state` keeps it.
    """

    instruction: Instruction = hardware

    def __call__(self, t: Tir, a: Any, _tiles: Tiles) -> None:
        """Write the body."""
        self.instruction(t, "sttilecfg", a.state.address(0))
        config = t.memory(_CONFIG_BYTES)
        config.store(0, t.constant(0, f"uint8x{_CONFIG_BYTES}"))
        config.store(0, t.constant(_PALETTE, "uint8"))
        config.store(_ROW_BYTES_AT, t.constant(_LINE, f"uint16x{_TILES}"))
        config.store(_ROWS_AT, t.constant(TOKENS, f"uint8x{_TILES}"))
        self.instruction(t, "ldtilecfg", config.address(0))


@dataclass(frozen=True)
class End:
    """Writes `gemm_end`: the configuration that `gemm_begin` found, mostly none, is put back."""

    instruction: Instruction = hardware

    def __call__(self, t: Tir, a: Any, _tiles: Tiles) -> None:
        """Write the body."""
        palette = t.let(a.state.load(0, "uint8"))
        with t.when(palette == 0):
            self.instruction(t, "tilerelease")
        with t.when(palette != 0):
            self.instruction(t, "ldtilecfg", a.state.address(0))


@dataclass(frozen=True)
class TileGemm:
    """Writes `gemm`: up to 16 tokens, which are one tile of activations.

    Sums stay in registers for all columns of the panel.
    """

    instruction: Instruction = hardware

    def fits(self, tiles: Tiles) -> bool:
        """Whether there are tile registers for so many tiles and tokens."""
        return tiles.gemm.tiles <= _ACTIVATIONS and tiles.gemm_tokens <= TOKENS

    def __call__(self, t: Tir, a: Any, tiles: Tiles) -> None:
        """Write the body.

        Raises:
            TargetError: there are not enough tile registers.
        """
        if not self.fits(tiles):
            sizes = f"{tiles.gemm.tiles} tiles and {tiles.gemm_tokens} tokens"
            most = f"at most {_ACTIVATIONS} and {TOKENS} fit its registers"
            raise TargetError(f"`gemm` of amx has {sizes}, {most}")

        def body(first: Any, walk: Walk) -> None:
            self._each_sum(t, a, "tileloadd64", first, walk)
            with t.loop(t.long(a.k_blocks) // _STEP) as step:
                self._multiply(t, a, first, walk, step)
            self._each_sum(t, a, "tilestored64", first, walk)

        walk_tiles(t, t.long(0), t.long(a.tiles), tiles.gemm, body)

    def _each_sum(self, t: Tir, a: Any, name: str, first: Any, walk: Walk) -> None:
        """Load or store the sums, which have a line in memory for each token and tile."""
        stride = t.let(t.long(a.tiles) * _LINE)
        for i in range(walk.tiles):
            self.instruction(t, name, t.tile(i), a.acc.address(t.let((first + i) * _LINE)), stride)

    def _multiply(self, t: Tir, a: Any, first: Any, walk: Walk, step: Any) -> None:
        """Columns 64 * step .. 64 * step + 63."""
        q = a.q.address(t.let(step * _COLUMNS))
        self.instruction(t, "tileloadd64", t.tile(_ACTIVATIONS), q, t.long(a.q_stride))
        for i in range(walk.tiles):
            vector = (first + i) * t.long(a.k_blocks) + step * _STEP
            panel = a.panel.address(t.let(vector * UNPACKED_BYTES))
            self.instruction(t, "tileloadd64", t.tile(_WEIGHTS), panel, t.constant(_LINE, "int64"))
            self.instruction(t, "tdpbsud", *map(t.tile, (i, _ACTIVATIONS, _WEIGHTS)))


_AVX512VBMI = _x86_avx512vbmi.VARIANT

VARIANT = Variant(
    name="amx",
    features=f"{_AVX512VBMI.features} | BITCC_CPU_AMXINT8",
    mcpu=_AVX512VBMI.mcpu,
    mattr=(*_AVX512VBMI.mattr, "+amx-tile", "+amx-int8"),
    # Measured on Sapphire Rapids for 128 tokens; docs/architecture.md says why there are two sums. A panel of
    # 16 KB and the sums of 128 tokens fill the L1. Reckoned: unpacking costs as much as VNNI needs for some
    # ten tokens.
    tiles=replace(
        _AVX512VBMI.tiles,
        gemm_few=_AVX512VBMI.tiles.gemm_few[:9],
        gemm=Walk(2),
        gemm_tokens=TOKENS,
        gemm_unit=TOKENS,
        panel_tiles=4,
        panel_vectors=16,
        few_blocks=1,
    ),
    kernels=replace(_AVX512VBMI.kernels, gemm=TileGemm(), gemm_begin=Begin(), gemm_end=End()),
    cpus="Sapphire Rapids and newer Xeons",
)
