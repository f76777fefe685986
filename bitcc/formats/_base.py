"""What a weight format is: a layout of ternary weights in bytes, the same for every target."""

from __future__ import annotations

from dataclasses import dataclass, field
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
        unpack: packed uint8, n, k -> (n, k) int8. Raises ``PackedWeightError`` for a wrong shape, a
            byte that no packer writes, or padding that is not zero.
        from_t2: (what ``t2`` packs an (n, k) matrix to, n, k) -> packed uint8.
        to_t2: (packed uint8, n, k) -> what ``t2`` packs the matrix to. Raises ``PackedWeightError`` as
            ``unpack`` does, but for what ``t2`` itself refuses.
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
    from_t2: Callable[[Bytes, int, int], Bytes]
    to_t2: Callable[[Bytes, int, int], Bytes]

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
