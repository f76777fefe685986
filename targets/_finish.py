"""`finish`: from int32 accumulators to float32, the same for every vector width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitcc.targets._base import Tiles
    from bitcc.targets._tir import Tir


@dataclass(frozen=True)
class Finish:
    """Writes `finish` or `finish_bias_first`: every operation is rounded, so that all variants agree.

    Attributes:
        lanes: Of a vector of 32 bits each.
        bias_first: Add the bias to the accumulator, instead of to the product.
    """

    lanes: int
    bias_first: bool

    def __call__(self, t: Tir, a: Any, _tiles: Tiles) -> None:
        """Write the body."""
        vectors = t.let(t.long(a.count) // self.lanes)
        with t.loop(vectors) as i:
            self._rows(t, a, t.let(i * (4 * self.lanes)), self.lanes)
        with t.loop(t.long(a.count) - vectors * self.lanes) as i:
            self._rows(t, a, t.let((vectors * self.lanes + i) * 4), 1)

    def _rows(self, t: Tir, a: Any, offset: Any, lanes: int) -> None:
        suffix = f"x{lanes}" if lanes > 1 else ""
        scale, bias = (rows.load(offset, f"float32{suffix}") for rows in (a.scale, a.bias))
        factor = t.broadcast(a.inverse, lanes) * scale
        acc = t.cast(f"float32{suffix}", a.acc.load(offset, f"int32{suffix}"))
        y = (acc + bias) * factor if self.bias_first else t.rounded(acc * factor) + bias
        a.y.store(offset, y)
