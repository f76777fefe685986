"""AVX512-VBMI: `vpermb` looks bytes up in a table of 64, which decodes weights in layout `t5`.

A byte below 192 is an index of four codes, and in its upper two bits the fifth. For the others there are two
more tables. All else is as with AVX512-VNNI, which CPUs with VBMI have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bitcc.formats import t5
from bitcc.targets import _x86_avx512vnni
from bitcc.targets._base import Walk
from bitcc.targets._matmul import CRUMBS, VECTOR_BYTES, GemmFewT5, GemvT5
from bitcc.targets._x86_vnni import Vnni

if TYPE_CHECKING:
    from bitcc.targets._base import Tiles
    from bitcc.targets._matmul import Accumulators, Block
    from bitcc.targets._tir import Tir

_GROUPS = 5  # of four columns in a vector
_ESCAPE = 192  # the first byte that is no index alone
_CODES = t5.FORMAT.byte_weights + 1
_FIRST_FOUR = (_CODES[:, :4] << (0, 2, 4, 6)).sum(1)  # of each byte, as in a byte of `t2`
_LAST = _CODES[:, 4].astype(int) << 6


@dataclass(frozen=True)
class _Decoder:
    """The tables, in registers."""

    t: Tir
    direct: Any
    escaped: Any
    last: Any

    @classmethod
    def load(cls, t: Tir) -> _Decoder:
        """Name them outside of the loops."""
        tables = (_FIRST_FOUR[:64], _FIRST_FOUR[_ESCAPE:], _LAST[_ESCAPE:])
        return cls(t, *(t.let(t.constants(table.tolist(), "uint8")) for table in tables))

    def __call__(self, packed: Any) -> tuple[Any, Any]:
        """A vector of bytes: the first four codes of each as in `t2`, and the last in the upper two bits."""
        t = self.t
        is_escaped = packed >= t.constant(_ESCAPE, "uint8x64")
        first = t.select(is_escaped, self._look_up(self.escaped, packed), self._look_up(self.direct, packed))
        last = t.select(is_escaped, self._look_up(self.last, packed), t.mask(packed, 0xC0))
        return t.let(first), t.let(last)

    def _look_up(self, table: Any, packed: Any) -> Any:
        """By the lower six bits."""
        return self.t.intrinsic("uint8x64", "llvm.x86.avx512.permvar.qi.512", table, packed)


def _multiply(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector of one token; accumulator i counts 4^i times too much, and the last code is with crumb 3.

    |accumulator 3| <= 2 * 128 * 128 * 65536 * 2 / 5 < 2^31.
    """
    decode = _Decoder.load(t)
    q = [_DOT.four_columns(t, block, 0, i) for i in range(_GROUPS)]
    for registers, offset in zip(accumulators[0], block.w_offsets, strict=True):
        first, last = decode(t.let(block.w.load(offset, "uint8x64")))
        for i in CRUMBS:
            _DOT.add(t, registers[i], t.mask(first, 3 << 2 * i), q[i])
        _DOT.add(t, registers[3], last, q[4])


def _multiply_few(t: Tir, block: Block, accumulators: Accumulators) -> None:
    """One vector, decoded once for all tokens."""
    decode = _Decoder.load(t)
    decoded = [decode(t.let(block.w.load(offset, "uint8x64"))) for offset in block.w_offsets]
    for i in range(_GROUPS):
        codes = [t.let(_group(t, first, last, i)) for first, last in decoded]
        for token, tiles in enumerate(accumulators):
            q = _DOT.four_columns(t, block, token, i)
            for registers, code in zip(tiles, codes, strict=True):
                _DOT.add(t, registers[0], code, q)


def _group(t: Tir, first: Any, last: Any, i: int) -> Any:
    """Codes of group i, a byte each; those of the last group have nothing beside them in their bytes."""
    if i == len(CRUMBS):
        return t.reinterpret("uint8x64", t.shift_right(t.reinterpret("uint16x32", last), 6))
    lanes = t.shift_right(t.reinterpret("uint16x32", first), 2 * i)
    return t.mask(t.reinterpret("uint8x64", lanes), 3)


def _unpack(t: Tir, a: Any, _tiles: Tiles) -> None:
    """Write `unpack_t5`."""
    decode = _Decoder.load(t)
    count = t.let(t.long(a.count))
    with t.loop(t.long(a.tiles)) as tile:
        w = t.let(tile * (t.long(a.k_blocks) * VECTOR_BYTES))
        out = t.let(tile * t.long(a.panel_stride))
        with t.loop(count) as vector:
            packed = t.let(a.w.load(w + vector * VECTOR_BYTES, "uint8x64"))
            a.w.prefetch(w + (vector + count) * VECTOR_BYTES)
            first, last = decode(packed)
            for i in range(_GROUPS):
                codes = _group(t, first, last, i)
                a.panel.store(out + (vector * _GROUPS + i) * VECTOR_BYTES, codes)


_DOT = Vnni(16)
_VNNI = _x86_avx512vnni.VARIANT

VARIANT = replace(
    _VNNI,
    name="avx512vbmi",
    features=f"{_VNNI.features} | BITCC_CPU_AVX512VBMI",
    mattr=(*_VNNI.mattr, "+avx512vbmi"),
    kernels=replace(
        _VNNI.kernels,
        gemv_t5=GemvT5(replace(_DOT.in_place, step=_multiply)),
        gemm_few_t5=GemmFewT5(
            replace(_DOT.unpacking, step=_multiply_few), (Walk(4, prefetch=1024),) * 2 + (Walk(2),)
        ),
        unpack_t5=_unpack,
    ),
)
