"""AVX512-VBMI: `vpermb` looks bytes up in a table of 64, which decodes weights in layout `t5`.

A byte below 192 is an index of four codes, and in its upper two bits the fifth. For the others there are two
more tables. CPUs with VBMI and VNNI have GFNI too, so that one instruction takes a crumb out of each byte.
All else is as with AVX512-VNNI.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bitcc.formats import t5
from bitcc.targets import _x86_avx512vnni
from bitcc.targets._base import Walk
from bitcc.targets._dot import CRUMBS, VECTOR_BYTES
from bitcc.targets._matmul import GemmFew, GemmFewT5, GemvT5
from bitcc.targets._x86_vnni import Vnni

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.targets._base import Tiles
    from bitcc.targets._dot import Accumulators, Block
    from bitcc.targets._tir import Pointer, Register, Tir

_GROUPS = 5  # of four columns in a vector
_REPACKED_AHEAD = 2048  # bytes from the vector that is repacked to what is asked for
_ESCAPE = 192  # the first byte that is no index alone
_CODES = t5.FORMAT.byte_weights + 1
_FIRST_FOUR = (_CODES[:, :4] << (0, 2, 4, 6)).sum(1)  # of each byte, as in a byte of `t2`
_LAST = _CODES[:, 4].astype(int)


@dataclass(frozen=True)
class _Decoder:
    """The tables, in registers.

    Attributes:
        t: Writes the kernel.
        place: The crumb that last codes get; they are in crumb 3, but for those in the table.
        direct: The first four codes of a byte, by its lower six bits.
        escaped: The same of the bytes from 192 on.
        last: The last code of these.
    """

    t: Tir
    place: int
    direct: Any
    escaped: Any
    last: Any

    @classmethod
    def load(cls, t: Tir, place: int) -> _Decoder:
        """Name them outside of the loops."""
        tables = (_FIRST_FOUR[:64], _FIRST_FOUR[_ESCAPE:], _LAST[_ESCAPE:] << 2 * place)
        return cls(t, place, *(t.let(t.constants(table.tolist(), "uint8")) for table in tables))

    def __call__(self, packed: Any) -> tuple[Any, Any]:
        """Of a vector of bytes: the first four codes of each as in `t2`, and the last one."""
        t = self.t
        is_escaped = packed >= t.constant(_ESCAPE, "uint8x64")
        last = t.mask(packed, 0xC0) if self.place == CRUMBS[-1] else _DOT.crumb(t, packed, CRUMBS[-1])
        first = t.select(is_escaped, self._look_up(self.escaped, packed), self._look_up(self.direct, packed))
        return t.let(first), t.let(t.select(is_escaped, self._look_up(self.last, packed), last))

    def _look_up(self, table: Any, packed: Any) -> Any:
        """By the lower six bits."""
        return self.t.intrinsic("uint8x64", "llvm.x86.avx512.permvar.qi.512", table, packed)


def _multiply(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector of one token; accumulator i counts 4^i times too much, and the last code is with crumb 3.

    |accumulator 3| <= 2 * 128 * 128 * 65536 * 2 / 5 < 2^31.
    """
    q = [_DOT.four_columns(t, block, 0, i) for i in range(_GROUPS)]
    for registers, offset in zip(accumulators[0], block.w_offsets, strict=True):
        first, last = _decode_in_place(t, block.w, offset)
        _multiply_first(t, registers, first, q)
        _DOT.add(t, registers[3], last, q[4])


def _multiply_ahead(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """The same of vectors that are decoded; those after them are decoded when their registers are free."""
    q = [_DOT.four_columns(t, block, 0, i) for i in range(_GROUPS)]
    parts = zip(accumulators[0], block.ahead, block.next_offsets, strict=True)
    for registers, decoded, offset in parts:
        first, last = (t.let(register.get()) for register in decoded)
        _DOT.add(t, registers[3], last, q[4])
        for register, value in zip(decoded, _decode_in_place(t, block.w, offset), strict=True):
            register.set(value)
        _multiply_first(t, registers, first, q)


def _multiply_first(t: Tir, registers: Sequence[Register], first: Any, q: Sequence[Any]) -> None:
    """The first four codes of each byte."""
    for i in CRUMBS:
        _DOT.add(t, registers[i], t.mask(first, 3 << 2 * i), q[i])


def _decode_in_place(t: Tir, w: Pointer, offset: Any) -> Sequence[Any]:
    """What `_multiply` needs of the vector at `offset`."""
    return _Decoder.load(t, place=CRUMBS[-1])(t.let(w.load(offset, "uint8x64")))


def _decode(t: Tir, w: Pointer, offset: Any) -> Sequence[Any]:
    """What `_multiply_few` needs of it."""
    return _Decoder.load(t, place=0)(t.let(w.load(offset, "uint8x64")))


def _multiply_few(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector, decoded once for all tokens.

    The last group comes first: then its registers are free, and the next vector is decoded beside the other
    products. A CPU takes its oldest instructions first, so that they would wait for codes of their own step.
    """
    decoded = [[t.let(register.get()) for register in tile] for tile in block.ahead]
    _multiply_group(t, block, len(CRUMBS), [last for _, last in decoded], accumulators)
    for tile, offset in zip(block.ahead, block.next_offsets, strict=True):
        for register, value in zip(tile, _decode(t, block.w, offset), strict=True):
            register.set(value)
    for i in CRUMBS:
        codes = [t.let(_DOT.crumb(t, first, i)) for first, _ in decoded]
        _multiply_group(t, block, i, codes, accumulators)


def _multiply_group(t: Tir, block: Block, i: int, codes: Sequence[Any], accumulators: Accumulators) -> None:
    """Columns 4i .. 4i + 3 of all tiles and tokens."""
    for token, tiles in enumerate(accumulators):
        q = _DOT.four_columns(t, block, token, i)
        for registers, code in zip(tiles, codes, strict=True):
            _DOT.add(t, registers[0], code, q)


def _unpack(t: Tir, a: Any, _tiles: Tiles) -> None:
    """Write `unpack_t5`."""
    decode = _Decoder.load(t, place=0)
    count = t.let(t.long(a.count))
    with t.loop(t.long(a.tiles)) as tile:
        w = t.let(tile * (t.long(a.k_blocks) * VECTOR_BYTES))
        out = t.let(tile * t.long(a.panel_stride))
        with t.loop(count) as vector:
            packed = t.let(a.w.load(w + vector * VECTOR_BYTES, "uint8x64"))
            first, last = decode(packed)
            for i, codes in enumerate([*(_DOT.crumb(t, first, i) for i in CRUMBS), last]):
                a.panel.store(out + (vector * _GROUPS + i) * VECTOR_BYTES, codes)


def repack_t5(t: Tir, a: Any, _tiles: Tiles) -> None:
    """Write `repack_t5`: the last codes of four vectors are those of one byte each."""
    decode = _Decoder.load(t, place=CRUMBS[-1])
    count, out_blocks = t.let(t.long(a.count)), t.let(t.long(a.out_blocks))
    groups = t.let(count // len(CRUMBS))
    rest = t.let(count - groups * len(CRUMBS))
    zeros = t.let(t.constant(0, "uint8x64"))
    with t.loop(t.long(a.tiles)) as tile:
        w = t.let(tile * (t.long(a.k_blocks) * VECTOR_BYTES))
        out = t.let(tile * (out_blocks * VECTOR_BYTES))

        def first_of(vector: Any, to: Any) -> Any:
            a.w.prefetch(w + vector * VECTOR_BYTES + _REPACKED_AHEAD)
            first, last = decode(t.let(a.w.load(w + vector * VECTOR_BYTES, "uint8x64")))
            a.out.store(out + to * VECTOR_BYTES, first)
            return t.reinterpret("uint16x32", last)

        with t.loop(groups) as group:
            lasts = [first_of(group * len(CRUMBS) + i, group * _GROUPS + i) for i in CRUMBS]
            moved = [t.shift_right(last, 2 * (CRUMBS[-1] - i)) for i, last in enumerate(lasts)]
            a.out.store(out + (group * _GROUPS + len(CRUMBS)) * VECTOR_BYTES, sum(moved[1:], moved[0]))
        done = t.let(groups * _GROUPS)
        with t.loop(out_blocks - done) as vector:
            a.out.store(out + (done + vector) * VECTOR_BYTES, zeros)
        combined = t.register(t.reinterpret("uint16x32", zeros))
        for i in CRUMBS[:-1]:
            with t.when(rest > i):
                last = first_of(groups * len(CRUMBS) + i, done + i)
                combined.set(combined.get() + t.shift_right(last, 2 * (CRUMBS[-1] - i)))
        with t.when(rest > 0):
            a.out.store(out + (done + rest) * VECTOR_BYTES, combined.get())


def gemm_few_t5(*walks: Walk) -> GemmFewT5:
    """The kernel of this name, with these walks for 2, 3 and more tokens."""
    return GemmFewT5(replace(_DOT.unpacking, step=_multiply_few, ahead=_decode), walks)


_DOT = Vnni(16, gfni=True)
_VNNI = _x86_avx512vnni.VARIANT

VARIANT = replace(
    _VNNI,
    name="avx512vbmi",
    features=f"{_VNNI.features} | BITCC_CPU_AVX512VBMI",
    mattr=(*_VNNI.mattr, "+avx512vbmi", "+gfni"),
    # with `vgf2p8affineqb` codes are unpacked so quickly that many calls of `gemm_few` are worth it
    tiles=replace(_VNNI.tiles, gemm_few=(*_VNNI.tiles.gemm_few, *(Walk(2, unroll=2),) * 2), few_blocks=4),
    kernels=replace(
        _VNNI.kernels,
        gemm_few=GemmFew(_DOT.unpacking),
        gemv_t5=GemvT5(
            replace(_DOT.in_place, step=_multiply),
            replace(_DOT.in_place, step=_multiply_ahead, ahead=_decode_in_place),
        ),
        # of 2 to 12 tokens: where LLVM has no registers left for the addresses of prefetches, without
        gemm_few_t5=gemm_few_t5(
            *(Walk(4, prefetch=1024),) * 2,
            Walk(2, prefetch=2048),
            *(Walk(2),) * 3,
            *(Walk(2, prefetch=2048),) * 4,
            Walk(2),
        ),
        unpack_t5=_unpack,
    ),
)
