"""The vocabulary of the kernels: writes TVM TIR functions that become plain C functions.

Only this module, `_codegen` and the same of CUDA import tvm. Loops that a kernel should unroll are
Python loops.
Every pointer is one to bytes, so that no alignment is ever promised to LLVM, and every offset is
counted in bytes in 64 bits, because tile * k_blocks * 64 passes 2^31.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tvm import tirx
from tvm.runtime import DataType
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as builder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Expr = Any  # A TIR expression; + - * // & | and comparisons work on it.


class Pointer:
    """Memory, read and written at byte offsets."""

    def __init__(self, buffer: Expr) -> None:
        self._bytes = buffer

    def load(self, offset: Expr, dtype: str) -> Expr:
        """The `dtype`, such as ``int32x16``, at byte `offset`, of any alignment."""
        return tirx.reinterpret(dtype, self._bytes[_span(offset, _size(dtype))])

    def store(self, offset: Expr, value: Expr) -> None:
        """Write `value` at byte `offset`, of any alignment."""
        size = _size(_dtype(value))
        # TVM refuses to reinterpret the scalar 0, and for one byte a cast is the same
        raw = tirx.Cast("uint8", value) if size == 1 else tirx.reinterpret(f"uint8x{size}", value)
        builder.buffer_store(self._bytes, raw, [_span(offset, size)])

    def prefetch(self, offset: Expr) -> None:
        """Ask for the cache line at byte `offset`; an address that is not mapped does no harm."""
        read, keep_in_all_caches, data = 0, 3, 1
        flags = (tirx.const(flag, "int32") for flag in (read, keep_in_all_caches, data))
        builder.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch.p0", self.address(offset), *flags))

    def address(self, offset: Expr) -> Expr:
        """Where byte `offset` is, for an instruction."""
        return tirx.address_of(self._bytes[_span(offset, 1)])


class Register:
    """A variable of a vector or scalar type that LLVM keeps in a register."""

    def __init__(self, initial: Expr) -> None:
        self.dtype = _dtype(initial)
        self._cell = builder.alloc_buffer((1,), self.dtype)
        self.set(initial)

    def get(self) -> Expr:
        """The value now."""
        return self._cell[0]

    def set(self, value: Expr) -> None:
        """Assign `value`, of the type of the first one."""
        builder.buffer_store(self._cell, value, [0])


class Tir:
    """What the body of a kernel can say."""

    def loop(self, count: Expr) -> Any:
        """A `with` block that runs for i = 0 .. count - 1 and gives i, in 64 bits."""
        return builder.serial(0, self.long(count))

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """A `with` block that runs where `condition` is true."""
        with builder.If(condition), builder.Then():
            yield

    def let(self, value: Expr) -> Expr:
        """Compute `value` once, here, and give it a name."""
        return builder.Bind(value)

    def register(self, initial: Expr) -> Register:
        """A new variable."""
        return Register(initial)

    def memory(self, size: int) -> Pointer:
        """So many bytes on the stack; what is in them is undefined."""
        return Pointer(builder.alloc_buffer((size,), "uint8"))

    def long(self, value: Expr) -> Expr:
        """An integer in 64 bits."""
        return tirx.Cast("int64", value)

    def constant(self, value: int, dtype: str) -> Expr:
        """The constant `value`, in every lane of `dtype`."""
        kind = DataType(dtype)
        return self.broadcast(tirx.const(value, str(kind.with_lanes(1))), kind.lanes)

    def constants(self, values: Sequence[int], dtype: str) -> Expr:
        """A constant for each lane, scalars of type `dtype`."""
        return tirx.Shuffle([tirx.const(int(value), dtype) for value in values], list(range(len(values))))

    def floats(self, value: float, lanes: int) -> Expr:
        """The float32 constant `value`, in every lane."""
        return self.broadcast(tirx.const(value, "float32"), lanes)

    def lane_numbers(self, lanes: int) -> Expr:
        """The int32 0, 1, 2 and so on, one in every lane."""
        return tirx.Ramp(tirx.const(0, "int32"), tirx.const(1, "int32"), lanes)

    def broadcast(self, value: Expr, lanes: int) -> Expr:
        """The same scalar in every lane."""
        return value if lanes == 1 else tirx.Broadcast(value, lanes)

    def shuffle(self, values: Sequence[Expr], lanes: Sequence[int]) -> Expr:
        """The lanes of so many numbers, counted through all `values`, vectors of one type."""
        return tirx.Shuffle(list(values), list(lanes))

    def reinterpret(self, dtype: str, value: Expr) -> Expr:
        """The same bits as another type."""
        return tirx.reinterpret(dtype, value)

    def cast(self, dtype: str, value: Expr) -> Expr:
        """The same numbers as another type; integers wrap around."""
        return tirx.Cast(dtype, value)

    def shift_right(self, value: Expr, bits: int) -> Expr:
        """Lanes >> bits, arithmetic for signed types and logical for unsigned ones."""
        return tirx.shift_right(value, self.constant(bits, _dtype(value)))

    def shift_left(self, value: Expr, bits: int) -> Expr:
        """Lanes << bits."""
        return tirx.shift_left(value, self.constant(bits, _dtype(value)))

    def select(self, condition: Expr, yes: Expr, no: Expr) -> Expr:
        """`yes` where `condition` is true, else `no`; both are computed."""
        return tirx.Select(condition, yes, no)

    def mask(self, value: Expr, bits: int) -> Expr:
        """Lanes & bits."""
        return tirx.bitwise_and(value, self.constant(bits, _dtype(value)))

    def minimum(self, left: Expr, right: Expr) -> Expr:
        """The smaller number, lane by lane."""
        return tirx.Min(left, right)

    def maximum(self, left: Expr, right: Expr) -> Expr:
        """The larger number, lane by lane."""
        return tirx.Max(left, right)

    def multiply_add(self, left: Expr, right: Expr, more: Expr) -> Expr:
        """Floats left * right + more, rounded once."""
        return self.intrinsic(_dtype(more), "llvm.fma", left, right, more)

    def rounded(self, value: Expr) -> Expr:
        """The floats `value`, rounded before more is done with them: not fused with an addition."""
        return self.intrinsic(_dtype(value), "llvm.arithmetic.fence", value)

    def intrinsic(self, dtype: str, name: str, *arguments: Expr) -> Expr:
        """The result, a `dtype`, of the LLVM intrinsic `name`, which has no side effect."""
        return tirx.call_llvm_pure_intrin(dtype, name, *arguments)

    def instruction(self, name: str, *arguments: Expr) -> None:
        """Write the LLVM intrinsic `name`, which has no result but an effect."""
        builder.evaluate(tirx.call_llvm_intrin("void", name, *arguments))

    def tile(self, number: int) -> Expr:
        """A tile register, as an operand."""
        return tirx.const(number, "uint8")


def function(symbol: str, parameters: Mapping[str, str], body: Callable[..., None]) -> Any:
    """Write one function.

    Args:
        symbol: The C name.
        parameters: Name to ``pointer`` or to a scalar type such as ``int32``, in C order.
        body: Called with the parameters by name; writes the statements.
    """
    with IRBuilder() as made:
        with builder.prim_func(s_tir=True):
            builder.func_name(symbol)
            builder.func_attr({"global_symbol": symbol, "tirx.noalias": True})
            declared = {
                name: builder.arg(
                    name, builder.handle("uint8") if kind == "pointer" else tirx.Var(name, kind)
                )
                for name, kind in parameters.items()
            }
            body(
                **{
                    name: _pointer(parameter) if parameters[name] == "pointer" else parameter
                    for name, parameter in declared.items()
                }
            )
        return made.get()


def _pointer(parameter: Expr) -> Pointer:
    return Pointer(builder.decl_buffer((1,), "uint8", data=parameter))


def _span(offset: Expr, size: int) -> Expr:
    """Indices of `size` bytes at a 64-bit offset."""
    offset = tirx.const(offset, "int64") if isinstance(offset, int) else offset
    return offset if size == 1 else tirx.Ramp(offset, tirx.const(1, "int64"), size)


def _size(dtype: str) -> int:
    """Bytes of a `dtype`."""
    kind = DataType(dtype)
    return int(kind.bits) * int(kind.lanes) // 8


def _dtype(value: Expr) -> str:
    return str(value.ty.dtype)
