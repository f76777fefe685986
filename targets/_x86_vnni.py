"""`vpdpbusd`: adds four products of unsigned and signed bytes to each 32-bit lane, which is a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcc.targets._dot import CRUMBS, VECTOR_BYTES, Dot
from bitcc.targets._pairs import FIRST, SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.targets._dot import Accumulators, Block
    from bitcc.targets._tir import Register, Tir


def _to_the_bottom(i: int) -> int:
    """A matrix of bits: its last byte selects the bit that becomes bit 0, the one before that for bit 1."""
    return (1 << 2 * i) << 56 | (2 << 2 * i) << 48


@dataclass(frozen=True)
class Vnni:
    """The dot products of vectors of so many rows.

    Attributes:
        lanes: 16 or 8.
        gfni: Whether the CPU has `vgf2p8affineqb`.
    """

    lanes: int
    gfni: bool = False

    @property
    def in_place(self) -> Dot:
        """For one token: crumb i keeps its place, so that accumulator i counts 4^i times too much.

        |accumulator 3| <= 192 * 128 * 65536 / 4 < 2^31.
        """
        return Dot(1, self._registers * len(CRUMBS), self._multiply_in_place, self._combine)

    @property
    def unpacking(self) -> Dot:
        """Each crumb is moved to the bottom once and used for every token."""
        return Dot(1, self._registers, self._multiply_unpacking, lambda _, sums: sums)

    @property
    def pairs(self) -> Dot:
        """As `unpacking`, for the activations of `gemm_pairs`."""
        return Dot(1, self._registers, self._multiply_pairs, lambda _, sums: sums)

    @property
    def unpacked(self) -> Dot:
        """Of codes that have a byte each."""
        return Dot(1, self._registers, self._multiply_unpacked, lambda _, sums: sums)

    @property
    def _parts(self) -> range:
        """Of a vector, of `lanes` rows each."""
        return range(16 // self.lanes)

    @property
    def _registers(self) -> tuple[str, ...]:
        return (f"int32x{self.lanes}",) * len(self._parts)

    def _multiply_in_place(self, t: Tir, block: Block, accumulators: Accumulators) -> None:
        q = [self.four_columns(t, block, 0, i) for i in CRUMBS]
        for registers, packed in zip(accumulators[0], self._load(t, block, 0), strict=True):
            for part, codes in enumerate(packed):
                for i in CRUMBS:
                    self.add(t, registers[i * len(self._parts) + part], t.mask(codes, 3 << 2 * i), q[i])

    def _combine(self, t: Tir, sums: Sequence[Any]) -> Sequence[Any]:
        """The exact quotients of the four accumulators."""
        parts = len(self._parts)
        return [
            sum((t.shift_right(sums[i * parts + part], 2 * i) for i in CRUMBS[1:]), sums[part])
            for part in self._parts
        ]

    def _multiply_unpacking(self, t: Tir, block: Block, accumulators: Accumulators) -> None:
        packed = self._load(t, block, 0)
        for i in CRUMBS:
            self._multiply(t, block, i, self._crumbs(t, packed, i), accumulators)

    def _multiply_pairs(self, t: Tir, block: Block, accumulators: Accumulators) -> None:
        """Pairs come last: of all that is unpacked only their codes need registers then."""
        packed = self._load(t, block, 0)
        for i in CRUMBS[:FIRST]:
            self._multiply(t, block, i, self._crumbs(t, packed, i), accumulators)
        tiles_of_codes = list(zip(*(self._crumbs(t, packed, i) for i in (FIRST, SECOND)), strict=True))
        size = 4 * self.lanes
        for token, tiles in enumerate(accumulators):
            q0 = t.let(t.reinterpret(f"uint8x{size}", self.four_columns(t, block, token, FIRST)))
            q1 = self.four_columns(t, block, token, SECOND)
            for registers, codes in zip(tiles, tiles_of_codes, strict=True):
                for register, c0, c1 in zip(registers, *codes, strict=True):
                    self.add(t, register, q0 + c1, q1 + t.reinterpret(f"int8x{size}", c0))

    def _multiply_unpacked(self, t: Tir, block: Block, accumulators: Accumulators) -> None:
        for i in CRUMBS:
            self._multiply(t, block, i, self._load(t, block, i * VECTOR_BYTES), accumulators)

    def _multiply(
        self, t: Tir, block: Block, i: int, codes: Sequence[Sequence[Any]], accumulators: Accumulators
    ) -> None:
        """Columns 4i .. 4i + 3 of all tiles and tokens."""
        for token, tiles in enumerate(accumulators):
            q = self.four_columns(t, block, token, i)
            for registers, parts in zip(tiles, codes, strict=True):
                for register, code in zip(registers, parts, strict=True):
                    self.add(t, register, code, q)

    def _load(self, t: Tir, block: Block, distance: int) -> list[list[Any]]:
        """By tile and part, 64 bytes of each tile."""
        size = 4 * self.lanes
        return [
            [t.let(block.w.load(offset + distance + part * size, f"uint8x{size}")) for part in self._parts]
            for offset in block.w_offsets
        ]

    def _crumbs(self, t: Tir, packed: Sequence[Sequence[Any]], i: int) -> list[list[Any]]:
        """Those of all vectors, by tile and part."""
        return [[t.let(self.crumb(t, lanes, i)) for lanes in parts] for parts in packed]

    def crumb(self, t: Tir, packed: Any, i: int) -> Any:
        """Bits 2i and 2i + 1 of every byte, moved to the bottom."""
        dtype = f"uint8x{4 * self.lanes}"
        if i == 0:
            return t.mask(packed, 3)
        if self.gfni:
            name = f"llvm.x86.vgf2p8affineqb.{32 * self.lanes}"
            matrix = t.reinterpret(dtype, t.constant(_to_the_bottom(i), f"uint64x{self.lanes // 2}"))
            return t.intrinsic(dtype, name, packed, matrix, t.constant(0, "int8"))
        wide = t.reinterpret(f"uint16x{2 * self.lanes}", packed)
        return t.mask(t.reinterpret(dtype, t.shift_right(wide, 2 * i)), 3)

    def four_columns(self, t: Tir, block: Block, token: int, i: int) -> Any:
        """Activations 4i .. 4i + 3 of a token, for every row."""
        four = block.q.load(block.q_offsets[token] + 4 * i, "int32")
        return t.let(t.reinterpret(f"int8x{4 * self.lanes}", t.broadcast(four, self.lanes)))

    def add(self, t: Tir, accumulator: Register, codes: Any, q: Any) -> None:
        """Add the products of four bytes of each row."""
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}"  # of AVX-VNNI too
        accumulator.set(t.intrinsic(accumulator.dtype, name, accumulator.get(), codes, q))
