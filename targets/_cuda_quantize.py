"""`absmax` and `quantize` for CUDA: a block of threads takes one token, norm and quantizer in one kernel.

The arithmetic is that of `bitcc.ops`, each operation rounded by itself (the source is compiled with
-fmad=false). Reductions go over fixed trees, so that a token has the same codes whatever is beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcc.targets._cuda_element import HALVES
from bitcc.targets._cuda_tir import WARP

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitcc.targets._cuda_element import Element
    from bitcc.targets._cuda_tir import Array, Cuda

THREADS = 256
_WARPS = THREADS // WARP
_WORD = 4  # codes in 32 bits
_NOT_SIGN = 0x7FFFFFFF
_INFINITY = 0x7F800000  # the bits of larger magnitudes are those of NaN
_NAN = 0x7FC00000
_RECIPROCAL, _DIVIDE, _QUOTIENT, _PRODUCT = range(4)  # as `ActScale` of `bitcc.ops`


@dataclass(frozen=True)
class Absmax:
    """Writes `absmax`: the largest |x| of all tokens, as bits, for quantizers with one scale for all.

    Attributes:
        element: The type of X.
    """

    element: Element

    def __call__(self, t: Cuda, a: Any) -> None:
        """Write the body."""
        largest = _Token(t, a, self.element).absmax()
        with t.when(t.thread == 0):
            t.run("atomicMax", a.absmax.address(0), largest)


@dataclass(frozen=True)
class Quantize:
    """Writes `quantize`: codes in words of four, their sum, and what takes them back.

    Attributes:
        element: The type of X.
    """

    element: Element

    def __call__(self, t: Cuda, a: Any) -> None:
        """Write the body."""
        token = _Token(t, a, self.element)
        largest = t.registers(1, "int32")
        with t.when(a.per_tensor != 0):
            largest.store(0, a.absmax.load(0))
        with t.when(a.per_tensor == 0):
            largest.store(0, token.absmax())
        bits = t.let(largest.load(0))
        factor, divisor = _scaling(t, a, t.let(t.reinterpret("float32", bits)))
        inverse = t.let(divisor / factor)
        total, worst = self._codes(t, a, token, (factor, divisor))
        inverse_bits = t.let(t.mask(t.reinterpret("int32", inverse), _NOT_SIGN))
        usable = (bits < _INFINITY) & (inverse_bits < _INFINITY) & (worst <= _INFINITY)
        with t.when(t.thread == 0):
            nan = t.reinterpret("float32", t.constant(_NAN, "int32"))
            a.inverse.store(t.block, t.select(usable, inverse, nan))
            a.sums.store(t.block, total)

    def _codes(self, t: Cuda, a: Any, token: _Token, scaling: tuple[Any, Any]) -> list[Any]:
        """Write the codes; returns their sum, and the largest bits of |x * m / d|, which show a NaN."""
        total, worst = t.registers(1, "int32"), t.registers(1, "int32")
        words = t.let(a.k_blocks * 4)
        with t.strided(t.thread, words, THREADS) as word:
            packed = t.registers(1, "int32")
            for byte in range(_WORD):
                column = t.let(word * _WORD + byte)
                with t.when(column < a.k):
                    scaled = _scaled(t, a, token.value(column), scaling)
                    code = _code(t, a, scaled)
                    magnitude = t.let(t.mask(t.reinterpret("int32", scaled), _NOT_SIGN))
                    worst.store(0, t.maximum(worst.load(0), magnitude))
                    total.store(0, total.load(0) + code)
                    packed.store(0, packed.load(0) | t.shift_left(t.mask(code, 255), 8 * byte))
            a.q.store(t.long(t.block) * t.long(words) + t.long(word), packed.load(0))
        return _over_block(t, "int32", (total.load(0), _add), (worst.load(0), t.maximum))


class _Token:
    """The activations of this block's token, normalized if the op has a norm."""

    def __init__(self, t: Cuda, a: Any, element: Element) -> None:
        self._t, self._a, self._element = t, a, element
        self._first = t.let(t.long(t.block) * t.long(a.k))
        self._norm = self._norm_scale()

    def absmax(self) -> Any:
        """The bits of the largest |x|; without the sign, the bits of floats order like integers."""
        t = self._t
        largest = t.registers(1, "int32")
        with self._columns() as column:
            bits = t.mask(t.reinterpret("int32", self.value(column)), _NOT_SIGN)
            largest.store(0, t.maximum(largest.load(0), bits))
        return _over_block(t, "int32", (largest.load(0), t.maximum))[0]

    def value(self, column: Any) -> Any:
        """One activation."""
        t, a = self._t, self._a
        value = t.registers(1, "float32")
        value.store(0, self._load(column))
        with t.when(a.has_norm != 0):
            value.store(0, value.load(0) * self._norm.load(0) * a.gain.load(column))
        return t.let(value.load(0))

    def _load(self, column: Any) -> Any:
        return self._element.load(self._t, self._a.x, self._first + self._t.long(column))

    def _columns(self) -> Any:
        """A `with` block for every column that this thread takes."""
        return self._t.strided(self._t.thread, self._a.k, THREADS)

    def _norm_scale(self) -> Array:
        """1 / sqrt(mean square + eps), the mean in float64."""
        t, a = self._t, self._a
        norm = t.registers(1, "float32", 1)
        with t.when(a.has_norm != 0):
            squares = t.registers(1, "float64")
            with self._columns() as column:
                x = t.let(t.cast("float64", self._load(column)))
                squares.store(0, squares.load(0) + x * x)
            (total,) = _over_block(t, "float64", (squares.load(0), _add))
            mean = t.cast("float32", total / t.cast("float64", a.k))
            root = t.call("float32", "sqrtf", mean + a.norm_eps)
            norm.store(0, t.floats(1, 1) / root)
        return norm


def _scaling(t: Cuda, a: Any, absmax: Any) -> tuple[Any, Any]:
    """What x is multiplied with, and what it is divided by: m and d of `bitcc.ops`."""
    larger = t.select(absmax > a.act_floor, absmax, a.act_floor)
    c = _rounded(t, a, larger + a.act_eps)
    factor, divisor = t.registers(1, "float32", 1), t.registers(1, "float32", 1)
    with t.when(a.act_scale == _RECIPROCAL):
        factor.store(0, _rounded(t, a, _rounded(t, a, t.floats(1, 1) / c) * a.qmax))
    with t.when(a.act_scale == _DIVIDE):
        factor.store(0, _rounded(t, a, a.qmax / c))
    with t.when(a.act_scale == _QUOTIENT):
        divisor.store(0, _rounded(t, a, c / a.qmax))
    with t.when(a.act_scale == _PRODUCT):
        factor.store(0, a.qmax)
        divisor.store(0, c)
    return t.let(factor.load(0)), t.let(divisor.load(0))


def _scaled(t: Cuda, a: Any, x: Any, scaling: tuple[Any, Any]) -> Any:
    """The activation before it is rounded to a code."""
    factor, divisor = scaling
    scaled = t.registers(1, "float32")
    scaled.store(0, _rounded(t, a, x * factor))
    with t.when(a.act_scale >= _QUOTIENT):  # a division takes long, and by 1 it changes nothing
        scaled.store(0, _rounded(t, a, scaled.load(0) / divisor))
    return t.let(scaled.load(0))


def _code(t: Cuda, a: Any, scaled: Any) -> Any:
    """Rounded half to even and clamped; fmaxf makes a number of NaN."""
    nearest = t.call("float32", "rintf", scaled)
    above = t.call("float32", "fmaxf", nearest, t.cast("float32", a.act_min))
    return t.let(t.cast("int32", t.call("float32", "fminf", above, t.cast("float32", a.act_max))))


def _rounded(t: Cuda, a: Any, value: Any) -> Any:
    """Rounded to `act_type`, in which the graph computes its quantizer."""
    result = t.registers(1, "float32")
    result.store(0, value)
    for half in HALVES:
        with t.when(a.act_type == half.number):
            result.store(0, half.rounded(t, result.load(0)))
    return t.let(result.load(0))


def _add(left: Any, right: Any) -> Any:
    return left + right


def _over_block(t: Cuda, dtype: str, *values: tuple[Any, Callable[[Any, Any], Any]]) -> list[Any]:
    """Each of the values of all threads, combined in an order that is always the same."""
    partial = [_over_warp(t, dtype, value, combine) for value, combine in values]
    t.barrier()
    totals = []
    for memory, (_, combine) in zip(partial, values, strict=True):
        total = memory.load(0)
        for warp in range(1, _WARPS):
            total = combine(total, memory.load(warp))
        totals.append(t.let(total))
    return totals


def _over_warp(t: Cuda, dtype: str, value: Any, combine: Callable[[Any, Any], Any]) -> Array:
    """For each warp the values of its threads, combined."""
    mine = t.let(value)
    for distance in (16, 8, 4, 2, 1):
        mine = t.let(combine(mine, t.exchange(dtype, mine, distance)))
    partial = t.shared(_WARPS, dtype)
    with t.when(t.thread % WARP == 0):
        partial.store(t.thread // WARP, mine)
    return partial
