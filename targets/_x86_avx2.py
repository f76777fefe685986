"""AVX2: `vpmaddubsw` adds two products in 16 bits; two of these lanes are one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitcc.targets._activations import Absmax, Quantize
from bitcc.targets._base import Kernels, Tiles, Variant, Walk
from bitcc.targets._dot import CRUMBS, UNPACKED_BYTES, VECTOR_BYTES, VECTOR_COLUMNS, Dot
from bitcc.targets._finish import Finish
from bitcc.targets._matmul import Gemm, GemmFew, Gemv, unpack
from bitcc.targets._matmul_float import FloatDot, GemvFloat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bitcc.targets._dot import Accumulators, Block
    from bitcc.targets._matmul_float import FloatBlock
    from bitcc.targets._tir import Register, Tir

_HALVES = range(2)  # 32-byte halves of a vector: rows 0..7 and 8..15
_VECTORS = 4  # of 16 columns between two widenings


def _multiply_in_place(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """Four vectors of one token, with one shift for four crumbs.

    Crumbs 0 and 2 are added as they are, 1 and 3 four times too large:
    |low| <= 4 vectors * 2 crumbs * 2 products * 3 * 128 = 6144 and |high| <= 24576, both < 2^15.
    """
    for tile, offset in enumerate(block.w_offsets):
        for half in _HALVES:
            low, high = (t.register(t.constant(0, "int16x16")) for _ in range(2))
            for vector in range(_VECTORS):
                codes = _half(t, block, offset, vector, half)
                for shifted, i in ((codes, 0), (t.let(t.shift_right(codes, 4)), 2)):
                    q = [_four_columns(t, block, 0, vector, i + j) for j in range(2)]
                    _add_pairs(t, low, _bytes(t, shifted, 0x03), q[0])
                    _add_pairs(t, high, _bytes(t, shifted, 0x0C), q[1])
            both = low.get() + t.shift_right(high.get(), 2)
            _widen(t, accumulators[0][tile][half], both)


def _multiply_unpacking(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """Four vectors; each crumb is moved to the bottom once and used for every token."""

    def crumbs(offset: Any, vector: int) -> Iterator[Sequence[Any]]:
        halves = [_half(t, block, offset, vector, half) for half in _HALVES]
        for i in CRUMBS:
            yield [t.let(_bytes(t, t.shift_right(codes, 2 * i), 0x03)) for codes in halves]

    _multiply(t, block, crumbs, accumulators)


def _multiply_unpacked(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """Four vectors of bytes."""

    def codes(offset: Any, vector: int) -> Iterator[Sequence[Any]]:
        for i in CRUMBS:
            first = offset + (vector * UNPACKED_BYTES + i * VECTOR_BYTES)
            yield [t.let(block.w.load(first + half * 32, "uint8x32")) for half in _HALVES]

    _multiply(t, block, codes, accumulators)


def _multiply(
    t: Tir,
    block: Block,
    codes: Callable[[Any, int], Iterator[Sequence[Any]]],
    accumulators: Accumulators,
) -> None:
    """Four vectors, of which `codes` gives the halves of each four columns.

    |sum| <= 4 vectors * 4 crumbs * 2 products * 3 * 128 = 12288 < 2^15.
    """
    for tile, offset in enumerate(block.w_offsets):
        sums = [[t.register(t.constant(0, "int16x16")) for _ in _HALVES] for _ in accumulators]
        for vector in range(_VECTORS):
            for i, halves in enumerate(codes(offset, vector)):
                for token, totals in enumerate(sums):
                    q = _four_columns(t, block, token, vector, i)
                    for total, half in zip(totals, halves, strict=True):
                        _add_pairs(t, total, half, q)
                        total.set(_opaque(t, total.get()))
        for token, totals in enumerate(sums):
            for total, accumulator in zip(totals, accumulators[token][tile], strict=True):
                _widen(t, accumulator, total.get())


def _half(t: Tir, block: Block, offset: Any, vector: int, half: int) -> Any:
    """Eight rows of packed codes, in lanes that can be shifted."""
    return t.let(block.w.load(offset + (vector * VECTOR_BYTES + half * 32), "uint16x16"))


def _bytes(t: Tir, lanes: Any, mask: int) -> Any:
    """The bytes of 16-bit lanes & mask."""
    return t.mask(t.reinterpret("uint8x32", lanes), mask)


def _four_columns(t: Tir, block: Block, token: int, vector: int, i: int) -> Any:
    """Activations 4i .. 4i + 3 of a token, for every row."""
    four = block.q.load(block.q_offsets[token] + (vector * VECTOR_COLUMNS + 4 * i), "int32")
    return t.let(t.reinterpret("int8x32", t.broadcast(four, 8)))


def _add_pairs(t: Tir, total: Register, codes: Any, q: Any) -> None:
    """Products of neighbours, added up in 16 bits."""
    total.set(total.get() + t.intrinsic("int16x16", "llvm.x86.avx2.pmadd.ub.sw", codes, q))


def _opaque(t: Tir, sums: Any) -> Any:
    """The same sums; LLVM would add products to each other first, and need more registers than there are."""
    return t.reinterpret("int16x16", t.rounded(t.reinterpret("float32x8", sums)))


def _widen(t: Tir, accumulator: Register, sums: Any) -> None:
    """Add the two 16-bit sums of each row to its 32-bit one."""
    ones = t.constant(1, "int16x16")
    wide = t.intrinsic("int32x8", "llvm.x86.avx2.pmadd.wd", sums, ones)
    accumulator.set(accumulator.get() + wide)


def _total(_t: Tir, registers: Sequence[Any]) -> Sequence[Any]:
    return registers


def _look_up(t: Tir, block: FloatBlock, sums: Sequence[Sequence[Register]]) -> None:
    """One vector: `vpermilps` selects a weight by the low two bits of each lane."""
    weights = t.let(t.cast("float32x8", t.mask(t.lane_numbers(8), 3)) - t.floats(1, 8))
    codes = [
        [t.let(block.w.load(offset + half * 32, "int32x8")) for half in _HALVES] for offset in block.w_offsets
    ]
    for crumb in range(16):  # of a lane: four in each of four bytes
        x = t.let(block.column(t, crumb // 4 + 4 * (crumb % 4), 8))
        for halves, totals in zip(codes, sums, strict=True):
            for code, total in zip(halves, totals, strict=True):
                selector = t.shift_right(code, 2 * crumb)
                w = t.intrinsic("float32x8", "llvm.x86.avx.vpermilvar.ps.256", weights, selector)
                total.set(t.multiply_add(w, x, total.get()))


VARIANT = Variant(
    name="avx2",
    features="BITCC_CPU_AVX2",
    mcpu="x86-64",
    mattr=("+avx2", "+fma", "+f16c"),
    tiles=Tiles(
        gemv=Walk(4, prefetch=2048),
        gemm_few=(Walk(1),) * 3,
        gemm=Walk(1),
        gemm_tokens=4,
        gemv_float=Walk(2, prefetch=512),
    ),
    kernels=Kernels(
        absmax=Absmax(8),
        quantize=Quantize(8, divide=False),
        quantize_divide=Quantize(8, divide=True),
        gemv=Gemv(Dot(_VECTORS, ("int32x8",) * 2, _multiply_in_place, _total)),
        gemm_few=GemmFew(Dot(_VECTORS, ("int32x8",) * 2, _multiply_unpacking, _total)),
        unpack=unpack,
        gemm=Gemm(Dot(_VECTORS, ("int32x8",) * 2, _multiply_unpacked, _total)),
        finish=Finish(8, bias_first=False),
        finish_bias_first=Finish(8, bias_first=True),
        gemv_float=GemvFloat(FloatDot(8, 2, _look_up, lambda sums: sums)),
    ),
    cpus="Haswell, Zen and newer",
)
