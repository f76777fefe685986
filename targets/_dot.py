"""What an instruction set plugs into the loops of `_matmul`: the dot product of codes and activations.

Layout `t2`: byte 4*n + kk of a 64-byte vector holds, in bits 2i..2i+1, the code of row n and of
column 4*i + kk. So the four bytes of a 32-bit lane are four columns of one row, the lane is the row, and
nothing is ever added across lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bitcc.targets._tir import Pointer, Register, Tir

    # by token, by tile of the walk, by register of the dot
    Accumulators = Sequence[Sequence[Sequence[Register]]]

VECTOR_BYTES = 64
VECTOR_COLUMNS = 16
T5_VECTOR_COLUMNS = 20  # of a vector of `t5`: five groups of four columns
CRUMBS = range(4)  # codes in a byte: four groups of four columns in a vector
UNPACKED_BYTES = 256  # of a vector whose codes have a byte each, one group after the other


@dataclass(frozen=True)
class Block:
    """What one step of K reads: `Dot.vectors` vectors of every tile.

    Attributes:
        q: Activations, int8.
        q_offsets: Where the activations of each token start, in bytes.
        w: Weights, packed or unpacked.
        w_offsets: Where the vectors of each tile start, in bytes.
        ahead: What `Dot.ahead` says, by tile: of these vectors, for the step to replace by those of the next.
        next_offsets: Where the next vectors of each tile in this chain start; at the end, the last ones.
    """

    q: Pointer
    q_offsets: Sequence[Any]
    w: Pointer
    w_offsets: Sequence[Any]
    ahead: Sequence[Sequence[Register]] = ()
    next_offsets: Sequence[Any] = ()


@dataclass(frozen=True)
class Dot:
    """How an instruction set multiplies codes by activations.

    Attributes:
        vectors: Vectors of 16 columns that `step` takes from each tile: 1, 2 or 4.
        registers: Types of the accumulators of one token and one tile.
        step: Adds a block to the accumulators.
        total: The accumulators of one token and one tile to sums of c * q: int32 vectors that
            together are the 16 rows in order.
        settle: What is left to do, once after the last step, with the accumulators of all tokens.
        ahead: What is made of a vector one step of its chain ahead, so that no product waits for it: given
            the writer, the weights and the offset. Only with one vector in a step.
    """

    vectors: int
    registers: tuple[str, ...]
    step: Callable[[Tir, Block, Accumulators], None]
    total: Callable[[Tir, Sequence[Any]], Sequence[Any]]
    settle: Callable[[Tir, Accumulators], None] | None = None
    ahead: Callable[[Tir, Pointer, Any], Sequence[Any]] | None = None
