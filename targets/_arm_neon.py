"""ARMv8.0: `smlal` adds eight products of signed bytes to 16-bit lanes, each a column of a row.

The sizes of its tiles are chosen on paper, for cores like Cortex-A53 and A72 (docs/arm64.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bitcc.targets import _arm_scalar
from bitcc.targets._base import Variant
from bitcc.targets._dot import CRUMBS, UNPACKED_BYTES, VECTOR_BYTES, VECTOR_COLUMNS, Dot
from bitcc.targets._matmul import Gemm, GemmFew, Gemv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bitcc.targets._dot import Accumulators, Block
    from bitcc.targets._tir import Register, Tir

    Codes = Callable[[Any, int], Iterator[Any]]

_QUARTERS = range(4)  # 16-byte quarters of a vector: four rows each
_LOW, _HIGH = range(8), range(8, 16)  # lanes of a quarter: two rows each


@dataclass(frozen=True)
class _Smlal:
    """The dot products of so many vectors, with one widening for all of them.

    Attributes:
        vectors: 4 for one token. With more tokens 1: there are registers for the columns of one vector.
    """

    vectors: int

    @property
    def packed(self) -> Dot:
        """Each crumb is moved to the bottom once and used for every token."""
        return Dot(self.vectors, ("int32x4",) * 4, self._multiply_packed, lambda _, sums: sums)

    @property
    def unpacked(self) -> Dot:
        """Of codes that have a byte each."""
        return Dot(self.vectors, ("int32x4",) * 4, self._multiply_unpacked, lambda _, sums: sums)

    def _multiply_packed(self, t: Tir, block: Block, accumulators: Accumulators) -> None:
        def crumbs(offset: Any, vector: int) -> Iterator[Any]:
            packed = t.let(block.w.load(offset + vector * VECTOR_BYTES, "uint8x16"))
            return (t.let(t.mask(t.shift_right(packed, 2 * i), 3)) for i in CRUMBS)

        self._multiply(t, block, crumbs, accumulators)

    def _multiply_unpacked(self, t: Tir, block: Block, accumulators: Accumulators) -> None:
        def codes(offset: Any, vector: int) -> Iterator[Any]:
            first = offset + vector * UNPACKED_BYTES
            return (t.let(block.w.load(first + i * VECTOR_BYTES, "uint8x16")) for i in CRUMBS)

        self._multiply(t, block, codes, accumulators)

    def _multiply(self, t: Tir, block: Block, codes: Codes, accumulators: Accumulators) -> None:
        """Vectors of which `codes` gives the crumbs of four rows, by offset and vector.

        |sum| <= 4 vectors * 4 crumbs * 3 * 128 = 6144, and two of them fit 16 bits too.
        """
        for tile, offset in enumerate(block.w_offsets):
            sums = [[_Sums(t) for _ in _QUARTERS] for _ in accumulators]
            for vector in range(self.vectors):
                columns = [_columns(t, block, token, vector) for token, _ in enumerate(accumulators)]
                for quarter in _QUARTERS:
                    for i, code in enumerate(codes(offset + 16 * quarter, vector)):
                        for q, of_token in zip(columns, sums, strict=True):
                            of_token[quarter].add(code, q[i])
            for of_token, tiles in zip(sums, accumulators, strict=True):
                for total, accumulator in zip(of_token, tiles[tile], strict=True):
                    total.widen(accumulator)


class _Sums:
    """16-bit sums of the four columns of each of four rows."""

    def __init__(self, t: Tir) -> None:
        self._t = t
        self._low, self._high = (t.register(t.constant(0, "int16x8")) for _ in range(2))

    def add(self, codes: Any, q: Any) -> None:
        """Add the products."""
        signed = self._t.let(self._t.reinterpret("int8x16", codes))
        for register, lanes in ((self._low, _LOW), (self._high, _HIGH)):
            a, b = (self._t.shuffle([value], lanes) for value in (signed, q))
            name = "llvm.aarch64.neon.smull.v8i16"
            register.set(register.get() + self._t.intrinsic(register.dtype, name, a, b))

    def widen(self, accumulator: Register) -> None:
        """Add the four columns of each row to its 32-bit sum."""
        t = self._t
        pairs = t.intrinsic("int16x8", "llvm.aarch64.neon.addp.v8i16", self._low.get(), self._high.get())
        rows = t.intrinsic("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", pairs)
        accumulator.set(accumulator.get() + rows)


def _columns(t: Tir, block: Block, token: int, vector: int) -> list[Any]:
    """By crumb, its four activations of a token, for every row."""
    sixteen = t.let(block.q.load(block.q_offsets[token] + vector * VECTOR_COLUMNS, "int32x4"))
    return [_opaque(t, t.shuffle([sixteen], [i] * 4)) for i in CRUMBS]


def _opaque(t: Tir, value: Any) -> Any:
    """The same bytes; LLVM no longer knows them for a broadcast, of which it would keep a half apart."""
    return t.let(t.reinterpret("int8x16", t.rounded(t.reinterpret("float32x4", value))))


_SCALAR = _arm_scalar.VARIANT

VARIANT = Variant(
    name="neon",
    features="BITCC_CPU_NEON",
    mcpu="generic",
    mattr=("+neon",),
    tiles=replace(_SCALAR.tiles, panel_vectors=16),  # 16 KB, half of the L1 of these cores
    kernels=replace(
        _SCALAR.kernels,
        gemv=Gemv(_Smlal(4).packed),
        gemm_few=GemmFew(_Smlal(1).packed),
        gemm=Gemm(_Smlal(1).unpacked),
    ),
    cpus="Cortex-A35, A53, A57, A72 and A73",
)
