"""`finish`: from int32 accumulators to float32, the same for every vector width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitcc.targets._base import Tiles
    from bitcc.targets._tir import Tir

_VECTORS = 4  # whose scales and biases stay in registers for all tokens: they take half of 16


@dataclass(frozen=True)
class Finish:
    """Writes `finish` or `finish_bias_first`: every operation is rounded, so that all variants agree.

    Where fewer rows are left than are taken at once, some of those before are computed again.

    Attributes:
        lanes: Of a vector of 32 bits each.
        bias_first: Add the bias to the accumulator, instead of to the product.
    """

    lanes: int
    bias_first: bool

    def __call__(self, t: Tir, a: Any, _tiles: Tiles) -> None:
        """Write the body."""
        many = _VECTORS * self.lanes
        with t.when(a.rows >= many):
            self._steps(t, a, _VECTORS, self.lanes)
        with t.when((a.rows >= self.lanes) & (a.rows < many)):
            self._steps(t, a, 1, self.lanes)
        with t.when(a.rows < self.lanes):
            self._steps(t, a, 1, 1)

    def _steps(self, t: Tir, a: Any, vectors: int, lanes: int) -> None:
        """All rows, of which there are enough for one step."""
        rows, step = t.let(t.long(a.rows)), vectors * lanes
        with t.loop((rows + (step - 1)) // step) as i:
            self._rows(t, a, t.let(t.minimum(i * step, rows - step)), vectors, lanes)

    def _rows(self, t: Tir, a: Any, first: Any, vectors: int, lanes: int) -> None:
        """All tokens, of some vectors of rows."""
        suffix = f"x{lanes}" if lanes > 1 else ""
        offsets = [t.let((first + i * lanes) * 4) for i in range(vectors)]
        scales, biases = (
            [t.let(rows.load(offset, f"float32{suffix}")) for offset in offsets] for rows in (a.scale, a.bias)
        )
        with t.loop(a.tokens) as token:
            inverse = t.let(t.broadcast(a.inverse.load(token * 4, "float32"), lanes))
            total = t.let(t.broadcast(a.sum.load(token * 4, "int32"), lanes))
            acc_row, y_row = (t.let(token * (t.long(stride) * 4)) for stride in (a.acc_stride, a.y_stride))
            for offset, scale, bias in zip(offsets, scales, biases, strict=True):
                acc = a.acc.load(acc_row + offset, f"int32{suffix}") - total
                y = self._output(t, t.cast(f"float32{suffix}", acc), inverse * scale, bias, lanes)
                a.y.store(y_row + offset, y)

    def _output(self, t: Tir, acc: Any, factor: Any, bias: Any, lanes: int) -> Any:
        if not self.bias_first:
            return t.rounded(acc * factor) + bias
        # TVM would drop a plain 0
        return t.rounded((acc + bias) * factor) + t.rounded(t.floats(0, lanes))
