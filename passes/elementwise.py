"""Constant matrices whose elements are computed one by one: read in blocks that stay in a core's cache.

A weight quantizer is a dozen element-wise nodes over the latent weights and a few scalars. As whole arrays
they would cost a dozen temporaries of the size of the weights; in blocks they cost their arithmetic. Where
all that varies is one tensor of 8 or 16 bits, the nodes are a function of its patterns of bits: they are
evaluated for each of those (``table``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from bitcc.passes.table import Table, size_of_halves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

BLOCK = 1 << 17
"""Elements that are computed together: their temporaries stay in a core's second-level cache."""

_ALL = slice(None)
_LOOKED_UP = 3  # nodes: fewer are computed faster than they are looked up
_BYTE, _TWO_BYTES = np.dtype(np.uint8), np.dtype(np.uint16)
_PATTERNS: dict[Any, np.dtype[Any]] = {
    np.dtype(np.int8): _BYTE,
    _BYTE: _BYTE,
    ir.DataType.FLOAT16.numpy(): _TWO_BYTES,
    ir.DataType.BFLOAT16.numpy(): _TWO_BYTES,
}


@dataclass(frozen=True, eq=False)
class Elementwise:
    """An array of two or more dimensions that element-wise nodes compute from arrays and scalars.

    Attributes:
        value: What is computed.
        nodes: How, producers first; none for an array as it is.
        leaves: What the nodes read, in the shape of the result or broadcast to it.
        shape: Of the result.
    """

    value: ir.Value
    nodes: tuple[ir.Node, ...]
    leaves: Mapping[ir.Value, Array]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: Array) -> Elementwise:
        """An array as it is."""
        value = ir.Value(name="array")
        return cls(value, (), {value: array}, array.shape)

    def whole(self) -> Array:
        """All of it at once."""
        if not self.nodes:
            return self.leaves[self.value]
        result = np.empty(self.shape, self.dtype)
        for rows in self.block_rows():
            result[rows] = self.rows(rows)
        return result

    def reshaped(self, shape: tuple[int, int]) -> Elementwise:
        """The same elements in the same order, as a matrix."""
        if shape == self.shape:
            return self
        if any(leaf.size > 1 and leaf.shape != self.shape for leaf in self.leaves.values()):
            return Elementwise(self.value, (), {self.value: self.whole().reshape(shape)}, shape)
        leaves = {v: a.reshape(() if a.shape != self.shape else shape) for v, a in self.leaves.items()}
        return Elementwise(self.value, self.nodes, leaves, shape)

    def block_rows(self, unit: int = 1, *, most: int = BLOCK, of: slice = _ALL) -> Iterator[slice]:
        """Which rows to read together, of all or some.

        Args:
            unit: Blocks begin at multiples of it behind the first row.
            most: Elements, if a unit has no more.
            of: Which rows.
        """
        first, end, _ = of.indices(self.shape[0])
        count = max(1, most // max(1, math.prod(self.shape[1:])) // unit) * unit
        for start in range(first, end, count):
            yield slice(start, min(start + count, end))

    def rows(self, rows: slice | NDArray[np.int64]) -> Array:
        """The result for some rows."""
        if self.is_looked_up and self.table is not None:
            return self.table.look_up(rows)
        return self.evaluate(self.leaves_of(rows))

    def leaves_of(self, rows: slice | NDArray[np.int64]) -> dict[ir.Value, Array]:
        """What the nodes read to compute some rows."""
        return {v: leaf[rows] if self._has_rows(leaf) else leaf for v, leaf in self.leaves.items()}

    def columns(self, columns: slice) -> Array:
        """The result for some places of the last axis."""
        leaves = self.leaves.items()
        varying = {v for v, leaf in leaves if leaf.ndim and leaf.shape[-1] == self.shape[-1] > 1}
        return self.evaluate({v: leaf[..., columns] if v in varying else leaf for v, leaf in leaves})

    def evaluate(self, leaves: Mapping[ir.Value, Array]) -> Array:
        """The result for these leaves."""
        known = dict(leaves)
        with np.errstate(all="ignore"):  # a constant may be infinite or NaN
            for node, read_last in zip(self.nodes, self._read_last, strict=True):
                known[node.outputs[0]] = _apply(node, [None if v is None else known[v] for v in node.inputs])
                for value in read_last:
                    del known[value]  # its memory, still in the cache, is that of the next result
        return known[self.value]

    @property
    def is_looked_up(self) -> bool:
        """Whether reading the ``table`` is faster than the nodes, if there is one."""
        return len(self.nodes) >= _LOOKED_UP

    @cached_property
    def table(self) -> Table | None:
        """The matrix as a function of 8 or 16 bits, if it is one."""
        varying = [leaf for leaf in self.leaves.values() if leaf.size > 1]
        if len(varying) != 1 or varying[0].dtype not in _PATTERNS or varying[0].shape != self.shape:
            return None
        return Table(self.evaluate(self.patterns()), varying[0].view(_PATTERNS[varying[0].dtype]))

    def patterns(self) -> dict[ir.Value, Array]:
        """What the nodes read to fill the ``table``."""
        return {v: a.reshape(()) if a.size == 1 else _every(a.dtype) for v, a in self.leaves.items()}

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of the result."""
        return self.evaluate(self.leaves_of(slice(0, 0))).dtype

    @cached_property
    def _read_last(self) -> list[list[ir.Value]]:
        """For each node the values that no later one reads."""
        last = {v: i for i, node in enumerate(self.nodes) for v in node.inputs if v is not None}
        gone: list[list[ir.Value]] = [[] for _ in self.nodes]
        for value, i in last.items():
            if value is not self.value:
                gone[i].append(value)
        return gone

    def _has_rows(self, leaf: Array) -> bool:
        return leaf.ndim == len(self.shape) and leaf.shape[0] == self.shape[0] > 1


def apply(node: ir.Node, inputs: Sequence[Array | None]) -> Array:
    """The result of an element-wise node; ``is_elementwise`` says which nodes are."""
    with np.errstate(all="ignore"):
        return _apply(node, inputs)


def _apply(node: ir.Node, inputs: Sequence[Array | None]) -> Array:
    return np.asarray(_OPS[node.op_type](node, *inputs))


def is_elementwise(node: ir.Node, dtypes: Sequence[np.dtype[Any] | None]) -> bool:
    """Whether ``apply`` computes the node for inputs of these types as ONNX defines it."""
    if node.op_type not in _OPS or len(node.outputs) != 1:
        return False
    if node.op_type == "Cast":
        to = ir.DataType(node.attributes.get_int("to", 0))
        return to in _CAST_TO and dtypes[0] in _NUMBERS
    known = [dtype for dtype in dtypes if dtype is not None]
    return len(set(known)) == 1 and known[0] in _FLOATS


_FLOAT_TYPES = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_FLOATS = frozenset(t.numpy() for t in _FLOAT_TYPES)
_NUMBERS = _FLOATS | {np.dtype(t) for t in (np.int8, np.uint8, np.int32, np.int64)}
_CAST_TO = frozenset(_FLOAT_TYPES)


def _clip(node: ir.Node, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Bounds are attributes before opset 11; the upper one wins where they cross."""
    bounds = [node.attributes.get_float("min"), node.attributes.get_float("max")]
    low, high = (
        value if bound is None else x.dtype.type(bound)
        for value, bound in zip((low, high), bounds, strict=True)
    )
    if low is not None and high is not None and x.dtype.kind == "f":
        return np.clip(x, low, high)
    if low is None:
        return x if high is None else np.minimum(x, high)
    raised = np.asarray(np.maximum(x, low))
    return raised if high is None else np.minimum(raised, high, out=raised)


def _every(dtype: np.dtype[Any]) -> Array:
    """Every pattern of bits of a type."""
    return np.arange(1 << 8 * dtype.itemsize).astype(_PATTERNS[dtype]).view(dtype)


def _cast(node: ir.Node, x: Array) -> Array:
    to = ir.DataType(node.attributes.get_int("to", 0)).numpy()
    if x.dtype == np.float16 and to == np.float32:
        return widened(x)
    return x.astype(to, copy=False)


def widened(x: NDArray[np.float16]) -> NDArray[np.float32]:
    """float16 as float32, several times faster than numpy, which converts one by one.

    The bits of exponent and mantissa are moved to their places, which divides by 2^112: the exponents of
    both types are biased by different amounts. Exact for all but NaN and infinity.
    """
    if x.size and size_of_halves(x.view(np.uint16)) >= 0x7C00:
        return x.astype(np.float32)
    bits = x.view(np.int16).astype(np.int32)
    bits <<= 13  # copies of the sign fill the upper bits
    bits &= ~0x70000000
    wide = bits.view(np.float32)
    wide *= np.float32(2.0**112)
    return wide


_OPS: dict[str, Callable[..., Any]] = {
    "Abs": lambda _, x: np.abs(x),
    "Add": lambda _, x, y: np.add(x, y),
    "Cast": _cast,
    "Clip": _clip,
    "Div": lambda _, x, y: np.divide(x, y),
    "Identity": lambda _, x: x,
    "Mul": lambda _, x, y: np.multiply(x, y),
    "Neg": lambda _, x: np.negative(x),
    "Reciprocal": lambda _, x: np.reciprocal(x),
    "Round": lambda _, x: np.rint(x),
    "Sign": lambda _, x: np.sign(x),
    "Sqrt": lambda _, x: np.sqrt(x),
    "Sub": lambda _, x, y: np.subtract(x, y),
}
