"""`absmax` and `quantize`: from float32 activations to int8, the same for every vector width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitcc.targets._base import Tiles
    from bitcc.targets._tir import Register, Tir

_NOT_SIGN = 0x7FFFFFFF


@dataclass(frozen=True)
class Absmax:
    """Writes `absmax`: without the sign, the bit patterns of floats order like integers.

    Attributes:
        lanes: Of a vector of 32 bits each.
    """

    lanes: int

    def __call__(self, t: Tir, a: Any, _tiles: Tiles) -> None:
        """Write the body."""
        k = t.let(t.long(a.k))
        with t.loop(a.tokens) as token:
            row = t.let(token * k)
            wide = t.register(t.constant(0, f"int32x{self.lanes}"))
            with t.loop(k // self.lanes) as i:
                self._larger(t, a, row + i * self.lanes, wide)
            best = t.register(t.intrinsic("int32", "llvm.vector.reduce.smax", wide.get()))
            rest = t.let(k // self.lanes * self.lanes)
            with t.loop(k - rest) as i:
                self._larger(t, a, row + rest + i, best)
            a.bits.store(token * 4, best.get())

    def _larger(self, t: Tir, a: Any, first: Any, best: Register) -> None:
        bits = a.x.load(first * 4, best.dtype)
        best.set(t.maximum(best.get(), t.mask(bits, _NOT_SIGN)))


@dataclass(frozen=True)
class _Token:
    """Where its activations and its codes begin, counted in them, and its scale."""

    x: Any
    q: Any
    scale: Any


@dataclass(frozen=True)
class Quantize:
    """Writes `quantize` or `quantize_divide`: scale, round half to even, clamp and add up.

    `llvm.lrint` is the CPU's own conversion, in the default rounding mode. Nothing is added to the
    product, so that there is nothing to fuse it with: it is rounded to float32 first.

    Attributes:
        lanes: Of a vector of 32 bits each.
        divide: By the scale, instead of a product with it.
    """

    lanes: int
    divide: bool

    def __call__(self, t: Tir, a: Any, _tiles: Tiles) -> None:
        """Write the body."""
        k, k_padded = t.let(t.long(a.k)), t.let(t.long(a.k_padded))
        with t.loop(a.tokens) as i:
            scale = t.let(a.scale.load(i * 4, "float32"))
            token = _Token(t.let(i * k), t.let(i * k_padded), scale)
            wide = t.register(t.constant(0, f"int32x{self.lanes}"))
            with t.loop(k // self.lanes) as vector:
                self._convert(t, a, token, t.let(vector * self.lanes), wide)
            total = t.register(t.intrinsic("int32", "llvm.vector.reduce.add", wide.get()))
            rest = t.let(k // self.lanes * self.lanes)
            with t.loop(k - rest) as j:
                self._convert(t, a, token, t.let(rest + j), total)
            with t.loop(k_padded - k) as j:
                a.q.store(token.q + k + j, t.constant(0, "int8"))
            a.sum.store(i * 4, total.get())

    def _convert(self, t: Tir, a: Any, token: _Token, first: Any, total: Register) -> None:
        """As many activations of a token as `total` has lanes."""
        suffix = total.dtype.removeprefix("int32")
        lanes = int(suffix.removeprefix("x") or 1)
        x, scale = a.x.load((token.x + first) * 4, f"float32{suffix}"), t.broadcast(token.scale, lanes)
        scaled = x / scale if self.divide else x * scale
        rounded = t.intrinsic(total.dtype, "llvm.lrint", scaled)
        low, high = t.broadcast(a.lo, lanes), t.broadcast(a.hi, lanes)
        q = t.let(t.minimum(t.maximum(rounded, low), high))
        a.q.store(token.q + first, t.cast(f"int8{suffix}", q))
        total.set(total.get() + q)
