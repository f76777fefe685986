"""What a weight format is: a layout of ternary weights in bytes, the same for every target."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitcc.errors import PackedWeightError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Int8: TypeAlias = NDArray[np.int8]
Bytes: TypeAlias = NDArray[np.uint8]
Order: TypeAlias = Literal["C", "F"]
"""Which index of a matrix moves fastest in memory: ``C`` the column, ``F`` the row."""

TWO_BYTES = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
"""uint8 [65536, 2]: the bytes of every number of 16 bits; looking up two at a time takes half as long."""

_COUNTED = 1 << 15  # pairs of bytes at a time: a multiple of the 32 of one vector
_SUMMED = 16  # pairs, whose sums stay below 256


class Unpack(Protocol):
    """packed uint8, n, k -> (n, k) int8, in memory of that order."""

    def __call__(self, packed: Bytes, n: int, k: int, order: Order = "C") -> Int8:
        """The weights; see ``WeightFormat``."""


@dataclass(frozen=True)
class WeightFormat:
    """A packed layout of a ternary weight matrix.

    Attributes:
        name: As in the op attribute ``weight_format`` and in the manifest, such as ``t2``.
        layout_version: Raised with every change of the bytes; readers refuse what they don't know.
        bits: Bits for one weight, padding aside.
        rows: Of a tile; N is padded to a multiple of them.
        columns: Of a tile; K is padded to a multiple of them. The bytes of whole tiles, some of the first two
            axes of the packed array, are the packed form of their rows and columns.
        byte_weights: int8 [256, weights in a byte], those of every byte in the order of their columns.
        packed_shape: (n, k) -> the shape of the packed uint8 array.
        pack: (n, k) int8 weights in {-1, 0, 1}, in memory of any order -> packed uint8. Raises
            ``PackedWeightError``.
        unpack: packed uint8, n, k -> (n, k) int8. Raises ``PackedWeightError`` for n or k below 1, a wrong
            shape, a byte that no packer writes, or padding that is not zero.
        holds: packed uint8, (n, k) int8 weights in memory of any order -> whether ``unpack`` gives them;
            False where it refuses. Raises ``PackedWeightError`` for a wrong shape.
    """

    name: str
    layout_version: int
    bits: float
    rows: int
    columns: int
    byte_weights: Int8 = field(compare=False, repr=False)
    packed_shape: Callable[[int, int], tuple[int, ...]]
    pack: Callable[[Int8], Bytes]
    unpack: Unpack
    holds: Callable[[Bytes, Int8], bool]

    def counts(self, packed: Bytes) -> tuple[int, int]:
        """How many weights are -1 and 1; the bytes are those that ``pack`` writes."""
        pairs = packed.reshape(-1).view(np.uint16)
        negative = positive = 0
        for start in range(0, pairs.size, _COUNTED):
            signs = np.take(self._signs_of_two, pairs[start : start + _COUNTED], mode="clip")
            sums = signs.reshape(_SUMMED, -1).sum(axis=0, dtype=np.uint16)
            negative += int((sums >> 8).sum())
            positive += int((sums & 0xFF).sum())
        return negative, positive

    @cached_property
    def _signs_of_two(self) -> NDArray[np.uint16]:
        """uint16 [65536]: how many weights of two bytes are 1, and 256 times how many are -1."""
        signs = (self.byte_weights == 1).sum(axis=1) + 256 * (self.byte_weights == -1).sum(axis=1)
        return np.asarray(signs[TWO_BYTES].sum(axis=1, dtype=np.uint16))

    def stack(self, parts: Sequence[tuple[Bytes, int]], k: int) -> Bytes:
        """(packed, n) of several (n, k) matrices -> packed, of all their rows below one another.

        Raises:
            PackedWeightError: a part is not what ``unpack`` takes.
        """
        if all(n % self.rows == 0 for _, n in parts[:-1]):
            return np.concatenate([packed for packed, _ in parts])
        return self.pack(np.concatenate([self.unpack(packed, n, k) for packed, n in parts]))


def check_packed(packed: Bytes, shape: tuple[int, ...], n: int, k: int) -> None:
    """Check that packed (n, k) weights are uint8 of that shape.

    Raises:
        PackedWeightError: they are not.
    """
    if packed.dtype != np.uint8 or packed.shape != shape:
        raise PackedWeightError(
            f"packed weights are {packed.dtype} {list(packed.shape)}, "
            f"expected uint8 {list(shape)} for N = {n}, K = {k}"
        )
