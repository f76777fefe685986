"""`absmax` and `quantize` for CUDA: a block of threads takes one token, norm and quantizer in one kernel.

The arithmetic is that of `bitcc.ops`, each operation rounded by itself (the source is compiled with
-fmad=false). Reductions go over fixed trees, so that a token has the same codes whatever is beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from bitcc.targets._cuda_element import FLOAT, HALVES
from bitcc.targets._cuda_tir import WARP

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitcc.targets._cuda_element import Element
    from bitcc.targets._cuda_tir import Array, Cuda

_WORD = 4  # codes in 32 bits, and columns that a thread takes at once
_NOT_SIGN = 0x7FFFFFFF
_INFINITY = 0x7F800000  # the bits of larger magnitudes are those of NaN
_NAN = 0x7FC00000
_Scaling: TypeAlias = "tuple[Any, Any, Any]"
# as `ActScale` of `bitcc.ops`
_RECIPROCAL, _DIVIDE, _QUOTIENT, _PRODUCT, _STEP_PRODUCT, _NORMALIZED, _STEP_SUM, _STEP_RECIPROCAL = range(8)


@dataclass(frozen=True)
class Absmax:
    """Writes `absmax`: the largest |x| of all tokens, as bits, for quantizers with one scale for all.

    Attributes:
        element: The type of X.
        threads: Of a block.
    """

    element: Element
    threads: int

    def __call__(self, t: Cuda, a: Any) -> None:
        """Write the body."""
        largest = _Token(t, a, self.element, _Block(t, self.threads)).absmax()
        with t.when(t.thread == 0):
            t.run("atomicMax", a.absmax.address(0), largest)


@dataclass(frozen=True)
class Quantize:
    """Writes `quantize`: codes in words of four, their sum, and what takes them back.

    Attributes:
        element: The type of X.
        threads: Of a block.
    """

    element: Element
    threads: int

    def __call__(self, t: Cuda, a: Any) -> None:
        """Write the body."""
        block = _Block(t, self.threads)
        token = _Token(t, a, self.element, block)
        largest = t.registers(1, "int32")
        with t.when(a.per_tensor != 0):
            largest.store(0, a.absmax.load(0))
        with t.when(a.per_tensor == 0):
            largest.store(0, token.absmax())
        bits = t.let(largest.load(0))
        factor, divisor, after = scaling = _scaling(t, a, t.let(t.reinterpret("float32", bits)))
        inverse = t.let(divisor / (factor * after))
        total, worst = self._codes(t, a, block, token, scaling)
        inverse_bits = t.let(t.mask(t.reinterpret("int32", inverse), _NOT_SIGN))
        usable = (bits < _INFINITY) & (inverse_bits < _INFINITY) & (worst <= _INFINITY)
        with t.when(t.thread == 0):
            nan = t.reinterpret("float32", t.constant(_NAN, "int32"))
            a.inverse.store(t.block, t.select(usable, inverse, nan))
            a.sums.store(t.block, total)

    def _codes(self, t: Cuda, a: Any, block: _Block, token: _Token, scaling: _Scaling) -> list[Any]:
        """Write the codes; returns their sum, and the largest bits of |x * m / d|, which show a NaN."""
        total, worst = t.registers(1, "int32"), t.registers(1, "int32")
        words, nothing = t.let(a.k_blocks * 4), t.constant(0, "int32")
        with block.each(words) as word:
            packed = nothing
            for byte, x in enumerate(token.values(word)):
                there = t.let(word * _WORD + byte < a.k)
                scaled = _scaled(t, a, x, scaling)
                code = t.let(t.select(there, _code(t, a, scaled), nothing))
                magnitude = t.mask(t.reinterpret("int32", scaled), _NOT_SIGN)
                worst.store(0, t.maximum(worst.load(0), t.select(there, magnitude, nothing)))
                total.store(0, total.load(0) + code)
                packed = t.let(packed | t.shift_left(t.mask(code, 255), 8 * byte))
            a.q.store(t.long(t.block) * t.long(words) + t.long(word), packed)
        return block.over("int32", (total.load(0), _add), (worst.load(0), t.maximum))


class _Token:
    """The activations of this block's token, normalized if the op has a norm."""

    def __init__(self, t: Cuda, a: Any, element: Element, block: _Block) -> None:
        self._t, self._a, self._element, self._block = t, a, element, block
        self._first = t.let(t.long(t.block) * t.long(a.k))
        self._norm = self._norm_scale()

    def absmax(self) -> Any:
        """The bits of the largest |x|; without the sign, the bits of floats order like integers."""
        t = self._t
        largest = t.registers(1, "int32")
        with self._words() as word:
            for value in self.values(word):
                bits = t.mask(t.reinterpret("int32", value), _NOT_SIGN)
                largest.store(0, t.maximum(largest.load(0), bits))
        return self._block.over("int32", (largest.load(0), t.maximum))[0]

    def values(self, word: Any) -> list[Any]:
        """Four activations; zeros beyond the last one."""
        t, a = self._t, self._a
        column = t.let(word * _WORD)
        values = t.registers(_WORD, "float32")
        for i, x in enumerate(self._load(column)):
            values.store(i, x)
        with t.when(a.has_norm != 0):
            gain = FLOAT.load_quad(t, a.gain, column, a.k - column)
            for i in range(_WORD):
                values.store(i, values.load(i) * self._norm.load(0) * gain[i])
        return [t.let(values.load(i)) for i in range(_WORD)]

    def _load(self, column: Any) -> list[Any]:
        t, a = self._t, self._a
        return self._element.load_quad(t, a.x, self._first + t.long(column), a.k - column)

    def _words(self) -> Any:
        """A `with` block for every four columns that this thread takes."""
        return self._block.each(self._t.let((self._a.k + (_WORD - 1)) // _WORD))

    def _norm_scale(self) -> Array:
        """1 / sqrt(mean square + eps), the mean in float64."""
        t, a = self._t, self._a
        norm = t.registers(1, "float32", 1)
        with t.when(a.has_norm != 0):
            squares = t.registers(1, "float64")
            with self._words() as word:
                for value in self._load(t.let(word * _WORD)):
                    x = t.let(t.cast("float64", value))
                    squares.store(0, squares.load(0) + x * x)
            (total,) = self._block.over("float64", (squares.load(0), _add))
            mean = t.cast("float32", total / t.cast("float64", a.k))
            root = t.call("float32", "sqrtf", mean + a.norm_eps)
            norm.store(0, t.floats(1, 1) / root)
        return norm


def _scaling(t: Cuda, a: Any, absmax: Any) -> _Scaling:
    """What x is multiplied with, what it is divided by, and a factor then: m, d and t of `bitcc.ops`."""
    larger = t.select(absmax > a.act_floor, absmax, a.act_floor)
    one, none = t.floats(1, 1), t.floats(0, 1)
    c = _rounded(t, a, larger + t.select(a.act_scale == _STEP_SUM, none, a.act_eps))
    factor, divisor, after = (t.registers(1, "float32", 1) for _ in range(3))
    with t.when(a.act_scale == _RECIPROCAL):
        factor.store(0, _rounded(t, a, _rounded(t, a, one / c) * a.qmax))
    with t.when(a.act_scale == _DIVIDE):
        factor.store(0, _rounded(t, a, a.qmax / c))
    with t.when(a.act_scale == _QUOTIENT):
        divisor.store(0, _rounded(t, a, c / a.qmax))
    with t.when(a.act_scale == _PRODUCT):
        factor.store(0, a.qmax)
        divisor.store(0, c)
    with t.when(a.act_scale == _STEP_PRODUCT):
        divisor.store(0, _rounded(t, a, c * _rounded(t, a, one / a.qmax)))
    with t.when(a.act_scale == _NORMALIZED):
        divisor.store(0, c)
        after.store(0, a.qmax)
    with t.when(a.act_scale == _STEP_SUM):
        divisor.store(0, _rounded(t, a, _rounded(t, a, c / a.qmax) + a.act_eps))
    with t.when(a.act_scale == _STEP_RECIPROCAL):
        factor.store(0, _rounded(t, a, one / _rounded(t, a, c / a.qmax)))
    return t.let(factor.load(0)), t.let(divisor.load(0)), t.let(after.load(0))


def _scaled(t: Cuda, a: Any, x: Any, scaling: _Scaling) -> Any:
    """The activation before it is rounded to a code."""
    factor, divisor, after = scaling
    scaled = t.registers(1, "float32")
    scaled.store(0, _rounded(t, a, x * factor))
    with t.when((a.act_scale >= _QUOTIENT) & (a.act_scale < _STEP_RECIPROCAL)):  # a division takes long
        scaled.store(0, _rounded(t, a, scaled.load(0) / divisor))
    with t.when(a.act_scale == _NORMALIZED):
        scaled.store(0, _rounded(t, a, scaled.load(0) * after))
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


class _Block:
    """The threads that share a token."""

    def __init__(self, t: Cuda, threads: int) -> None:
        self._t, self._threads = t, threads

    def each(self, count: Any) -> Any:
        """A `with` block for every number below `count` that this thread takes."""
        return self._t.strided(self._t.thread, count, self._threads)

    def over(self, dtype: str, *values: tuple[Any, Callable[[Any, Any], Any]]) -> list[Any]:
        """Each of the values of all threads, combined in an order that is always the same."""
        partial = [self._over_warp(dtype, value, combine) for value, combine in values]
        self._t.barrier()
        totals = []
        for memory, (_, combine) in zip(partial, values, strict=True):
            total = memory.load(0)
            for warp in range(1, self._threads // WARP):
                total = combine(total, memory.load(warp))
            totals.append(self._t.let(total))
        return totals

    def _over_warp(self, dtype: str, value: Any, combine: Callable[[Any, Any], Any]) -> Array:
        """For each warp the values of its threads, combined."""
        t = self._t
        mine = t.let(value)
        for distance in (16, 8, 4, 2, 1):
            mine = t.let(combine(mine, t.exchange(dtype, mine, distance)))
        partial = t.shared(self._threads // WARP, dtype)
        with t.when(t.thread % WARP == 0):
            partial.store(t.thread // WARP, mine)
        return partial
