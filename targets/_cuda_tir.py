"""The vocabulary of the CUDA kernels: what one thread of a block does, as TVM TIR.

As in `_tir`, loops that a kernel should unroll are Python loops. Other than there, memory is typed and read
at element indices, since 16 bytes that are loaded at once must be aligned, and loops count in 32 bits.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as builder

from bitcc.targets._tir import Tir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Expr = Any  # A TIR expression, as in `_tir`.
    Quad = tuple[Expr, ...]  # Four scalars: what one thread loads at once

WARP = 32
QUAD = 4  # words in 16 bytes
_MAX_BLOCKS = {"x": 2**31 - 1, "y": 65535}
_POINTER = "*"
_LAUNCHED_BY_THE_HOST = 2  # a calling convention of TVM


class Array:
    """Memory of one type: global, shared by the threads of a block, or the registers of one."""

    def __init__(self, buffer: Expr) -> None:
        self._buffer = buffer

    def load(self, index: Expr) -> Expr:
        """An element."""
        return self._buffer[index]

    def store(self, index: Expr, value: Expr) -> None:
        """Write an element."""
        builder.buffer_store(self._buffer, value, [index])

    def load_quad(self, index: Expr) -> Quad:
        """Four elements from `index` on, which is a multiple of four, by one load."""
        vector = builder.Bind(self._buffer[tirx.Ramp(index, 1, QUAD)])
        return tuple(tirx.Shuffle([vector], [lane]) for lane in range(QUAD))

    def store_quad(self, index: Expr, quad: Quad) -> None:
        """Write four elements from `index` on, which is a multiple of four, by one store."""
        indices = tirx.Ramp(index, 1, QUAD)
        builder.buffer_store(self._buffer, tirx.Shuffle(list(quad), list(range(QUAD))), [indices])

    def address(self, index: Expr) -> Expr:
        """A C pointer to an element."""
        return tirx.address_of(self._buffer[index])


class Cuda(Tir):
    """What the body of a CUDA kernel can say.

    Attributes:
        block: blockIdx.x.
        block_y: blockIdx.y.
        thread: threadIdx.x.
    """

    def __init__(self, block: Expr, block_y: Expr, thread: Expr) -> None:
        self.block, self.block_y, self.thread = block, block_y, thread

    def loop(self, count: Expr) -> Any:
        """A `with` block that runs for i = 0 .. count - 1 and gives i, in 32 bits."""
        return builder.serial(0, count)

    def no(self, condition: Expr) -> Expr:
        """Whether it is false."""
        return tirx.Not(condition)

    def reinterpret(self, dtype: str, value: Expr) -> Expr:
        """The bits of an int32 as a float32, or the other way round."""
        return self.call(dtype, {"int32": "__float_as_int", "float32": "__int_as_float"}[dtype], value)

    @contextmanager
    def strided(self, first: Expr, count: Expr, step: int) -> Iterator[Expr]:
        """A `with` block that runs for i = first, first + step and so on below `count`; first < step."""
        with self.loop((count + (step - 1)) // step) as turn:
            i = self.let(turn * step + first)
            with self.when(i < count):
                yield i

    def registers(self, count: int, dtype: str, initial: float = 0) -> Array:
        """So many variables; only constant indices keep them in registers."""
        array = Array(builder.alloc_buffer((count,), dtype, scope="local"))
        for i in range(count):
            array.store(i, tirx.const(initial, dtype))
        return array

    def shared(self, count: int, dtype: str) -> Array:
        """Memory of the block; what is in it is undefined."""
        return Array(builder.alloc_buffer((count,), dtype, scope="shared"))

    def barrier(self) -> None:
        """Wait for all threads of the block; every one must come here."""
        builder.evaluate(tirx.call_intrin("int32", "tirx.tvm_storage_sync", "shared"))

    def call(self, dtype: str, name: str, *arguments: Expr) -> Expr:
        """The result, a `dtype`, of a device function, called once and here."""
        return builder.Bind(tirx.call_extern(dtype, name, *arguments))

    def run(self, name: str, *arguments: Expr) -> None:
        """Call a device function without a result."""
        builder.evaluate(tirx.call_extern("void", name, *arguments))

    def fetch(self, name: str, address: Expr, there: Expr) -> Quad:
        """Four int32 by the device function `name`, or zeros if not `there`."""
        registers = Array(builder.alloc_buffer((QUAD,), "int32", scope="local"))
        self.run(name, registers.address(0), address, there)
        return tuple(registers.load(lane) for lane in range(QUAD))

    def exchange(self, dtype: str, value: Expr, distance: int) -> Expr:
        """What the thread whose number in the warp differs by the bit `distance` has as `value`."""
        return self.call(dtype, "__shfl_xor_sync", tirx.const(2**32 - 1, "uint32"), value, distance)


def kernel(
    symbol: str, parameters: Mapping[str, str], threads: int, blocks: int, body: Callable[..., None]
) -> Any:
    """Write one kernel.

    Args:
        symbol: The C name.
        parameters: Name to a scalar type such as ``int32`` or a pointer to it, ``int32*``, in C order.
        threads: Of a block, along x.
        blocks: For so many at once an SM must have registers.
        body: Called with a `Cuda` and the parameters by name; writes the statements.
    """
    with IRBuilder() as made:
        with builder.prim_func(s_tir=True):
            builder.func_name(symbol)
            builder.func_attr({
                "global_symbol": symbol,
                "tirx.noalias": True,
                "calling_conv": _LAUNCHED_BY_THE_HOST,
                "tirx.launch_bounds_min_blocks_per_sm": blocks,
            })  # fmt: skip
            declared = {name: builder.arg(name, _variable(name, kind)) for name, kind in parameters.items()}
            values = {name: _value(declared[name], kind) for name, kind in parameters.items()}
            with (
                builder.launch_thread("blockIdx.x", _MAX_BLOCKS["x"]) as block,
                builder.launch_thread("blockIdx.y", _MAX_BLOCKS["y"]) as block_y,
                builder.launch_thread("threadIdx.x", threads) as thread,
            ):
                body(Cuda(block, block_y, thread), **values)
        return made.get()


def _variable(name: str, kind: str) -> Expr:
    is_pointer = kind.endswith(_POINTER)
    return builder.handle(kind.removesuffix(_POINTER)) if is_pointer else tirx.Var(name, kind)


def _value(declared: Expr, kind: str) -> Expr:
    if not kind.endswith(_POINTER):
        return declared
    return Array(builder.decl_buffer((1,), kind.removesuffix(_POINTER), data=declared))
