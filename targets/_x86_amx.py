"""AMX-INT8: `tdpbsud` on tiles of 16 rows of 64 bytes; everything but `gemm` is as on AVX512-VBMI.

A tile of activations is 16 tokens of 64 columns, as they lie in memory. A tile of unpacked weights is 16
lines of the panel, four columns of 16 rows in each, which is the order that `tdpbsud` wants. Two of either
make four products, so that a tile is loaded for each instruction.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bitcc.errors import TargetError
from bitcc.targets import _x86_avx512vbmi
from bitcc.targets._base import Variant, Walk
from bitcc.targets._matmul import UNPACKED_BYTES, VECTOR_COLUMNS, walk_tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bitcc.targets._base import Tiles
    from bitcc.targets._tir import Tir

    # Writes one tile instruction: the end of its LLVM name, and its operands.
    Instruction = Callable[..., None]

TOKENS = 16  # of a tile
_COLUMNS = 64
_LINE = 64  # bytes of a row of any tile
_STEP = _COLUMNS // VECTOR_COLUMNS  # vectors of a tile of weights

# Numbers of tile registers: sums by half of the tokens and by tile of weights.
_SUMS = ((0, 1), (2, 3))
_ACTIVATIONS = (4, 5)
_WEIGHTS = (6, 7)

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
    """Writes `gemm`: up to 32 tokens, of which the last 16 are left out where there are no more."""

    instruction: Instruction = hardware

    def fits(self, tiles: Tiles) -> bool:
        """Whether there are tile registers for so many tiles and tokens."""
        return tiles.gemm.tiles <= len(_WEIGHTS) and tiles.gemm_tokens <= TOKENS * len(_ACTIVATIONS)

    def __call__(self, t: Tir, a: Any, tiles: Tiles) -> None:
        """Write the body.

        Raises:
            TargetError: there are not enough tile registers.
        """
        if not self.fits(tiles):
            sizes = f"{tiles.gemm.tiles} tiles and {tiles.gemm_tokens} tokens"
            raise TargetError(f"`gemm` of amx has {sizes}, at most 2 and 32 fit its registers")
        halves = range(len(_ACTIVATIONS))
        with t.when(a.tokens <= TOKENS):
            self._write(t, a, tiles.gemm, halves[:1])
        with t.when(a.tokens > TOKENS):
            self._write(t, a, tiles.gemm, halves)

    def _write(self, t: Tir, a: Any, walk: Walk, halves: Sequence[int]) -> None:
        """For so many halves of the tokens."""

        def body(first: Any, walk: Walk) -> None:
            block = _Block(t, a, self.instruction, halves, range(walk.tiles), first)
            block.each_sum("tileloadd64")
            with t.loop(t.long(a.k_blocks) // _STEP) as step:
                block.multiply(step)
            block.each_sum("tilestored64")

        walk_tiles(t, t.long(0), t.long(a.tiles), walk, body)


@dataclass(frozen=True)
class _Block:
    """Sums of up to 32 tokens and 32 rows, which stay in registers for all columns of the panel.

    Attributes:
        t: Writes the code.
        a: The arguments of the kernel.
        instruction: Writes an instruction.
        halves: Of the tokens.
        weights: Tiles of weights, counted from `first`.
        first: A tile of the panel.
    """

    t: Tir
    a: Any
    instruction: Instruction
    halves: Sequence[int]
    weights: Sequence[int]
    first: Any

    def each_sum(self, name: str) -> None:
        """Load or store the sums, which have a line in memory for each token and tile."""
        t = self.t
        stride = t.let(t.long(self.a.tiles) * _LINE)
        for half, i in itertools.product(self.halves, self.weights):
            line = self.a.acc.address(t.let(stride * (half * TOKENS) + (self.first + i) * _LINE))
            self.instruction(t, name, t.tile(_SUMS[half][i]), line, stride)

    def multiply(self, step: Any) -> None:
        """Columns 64 * step .. 64 * step + 63."""
        t, a = self.t, self.a
        stride, line = t.let(t.long(a.q_stride)), t.constant(_LINE, "int64")
        for half in self.halves:
            q = a.q.address(t.let(stride * (half * TOKENS) + step * _COLUMNS))
            self.instruction(t, "tileloadd64", t.tile(_ACTIVATIONS[half]), q, stride)
        for i in self.weights:
            vector = (self.first + i) * t.long(a.k_blocks) + step * _STEP
            panel = a.panel.address(t.let(vector * UNPACKED_BYTES))
            self.instruction(t, "tileloadd64", t.tile(_WEIGHTS[i]), panel, line)
            for half in self.halves:
                tiles = (_SUMS[half][i], _ACTIVATIONS[half], _WEIGHTS[i])
                self.instruction(t, "tdpbsud", *map(t.tile, tiles))


_AVX512VBMI = _x86_avx512vbmi.VARIANT

VARIANT = Variant(
    name="amx",
    features=f"{_AVX512VBMI.features} | BITCC_CPU_AMXINT8",
    mcpu=_AVX512VBMI.mcpu,
    mattr=(*_AVX512VBMI.mattr, "+amx-tile", "+amx-int8"),
    # Found without AMX, by loads and stores of the same lines in place of tiles: a panel of 16 KB, the
    # activations of 32 tokens and the sums of 128 are 48 KB, the L1 of CPUs with AMX. And reckoned:
    # unpacking costs as much as VNNI needs for some ten tokens.
    tiles=replace(
        _AVX512VBMI.tiles,
        gemm=Walk(2),
        gemm_tokens=2 * TOKENS,
        gemm_unit=TOKENS,
        panel_tiles=2,
        few_blocks=1,
    ),
    kernels=replace(_AVX512VBMI.kernels, gemm=TileGemm(), gemm_begin=Begin(), gemm_end=End()),
    note="exact in an emulation of its instructions, not timed on a CPU yet",
    cpus="Sapphire Rapids and newer Xeons",
)
