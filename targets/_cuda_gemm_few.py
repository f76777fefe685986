"""`gemm_few` for CUDA: up to eight tokens by tensor cores, and warps that share K."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcc.targets._cuda_tensor_cores import GROUP, VECTORS, WARP_ROWS, Place, Sums, codes_address
from bitcc.targets._cuda_tir import QUAD, WARP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bitcc.targets._cuda_finish import Finish
    from bitcc.targets._cuda_tir import Array, Cuda, Quad


@dataclass(frozen=True)
class GemmFew:
    """Writes `gemm_few`: a block takes 32 rows and 8 tokens, and its warps share K.

    Attributes:
        warps: Of a block.
        unroll: Steps of K that a warp loads while it multiplies as many.
        finish: Writes Y.
    """

    warps: int
    unroll: int
    finish: Finish

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.warps * WARP

    def __call__(self, t: Cuda, a: Any) -> None:
        """Write the body."""
        place = Place(t)
        warp = t.let(t.thread // WARP)
        sums = Sums(t, groups=1)
        token = t.let(t.minimum(t.block_y * GROUP + place.group, a.tokens - 1))
        steps = t.let(a.k_blocks // VECTORS)

        def load(turn: Any) -> list[tuple[Quad, Quad]]:
            """The operands of each step of a turn."""
            numbers = [t.let((turn * self.unroll + i) * self.warps + warp) for i in range(self.unroll)]
            weights = [place.weights(t, a, t.block, step) for step in numbers]
            codes = [codes_address(t, a, token, step * VECTORS + place.part) for step in numbers]
            return [
                (t.fetch("bitcc_load_weights", w, step < steps), t.fetch("bitcc_load_codes", q, step < steps))
                for w, q, step in zip(weights, codes, numbers, strict=True)
            ]

        held = t.registers(2 * QUAD * self.unroll, "int32")
        _copy(held, itertools.chain(*itertools.chain(*load(t.constant(0, "int32")))))
        with t.loop((steps + (self.warps * self.unroll - 1)) // (self.warps * self.unroll)) as turn:
            following = load(turn + 1)
            for i in range(self.unroll):
                both = [held.load(2 * QUAD * i + word) for word in range(2 * QUAD)]
                sums.add(t, both[:QUAD], [tuple(both[QUAD:])])
            _copy(held, itertools.chain(*itertools.chain(*following)))
        self._write(t, a, place, sums, warp)

    def _write(self, t: Cuda, a: Any, place: Place, sums: Sums, warp: Any) -> None:
        """Add up the warps, in their order."""
        partial = t.shared(self.warps * GROUP * WARP_ROWS, "int32")

        def keep(row: Any, token: Any, value: Any) -> None:
            partial.store((warp * GROUP + token) * WARP_ROWS + row, value)

        sums.each(place, keep)
        t.barrier()
        with t.strided(t.thread, t.constant(GROUP * WARP_ROWS, "int32"), self.threads) as i:
            total = partial.load(i)
            for other in range(1, self.warps):
                total = total + partial.load(i + other * GROUP * WARP_ROWS)
            row, token = t.block * WARP_ROWS + i % WARP_ROWS, t.block_y * GROUP + i // WARP_ROWS
            self.finish(t, a, token=t.let(token), row=t.let(row), sum_of_codes=t.let(total))


def _copy(registers: Array, values: Iterable[Any]) -> None:
    for i, value in enumerate(values):
        registers.store(i, value)
