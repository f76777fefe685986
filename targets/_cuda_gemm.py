"""`gemm` for CUDA: many tokens by tensor cores, and copies to shared memory that run ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcc.targets._cuda_tensor_cores import GROUP, VECTORS, WARP_ROWS, Place, Sums, codes_address
from bitcc.targets._cuda_tir import QUAD, WARP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bitcc.targets._cuda_finish import Finish
    from bitcc.targets._cuda_tir import Array, Cuda


@dataclass(frozen=True)
class Gemm:
    """Writes `gemm`: warps share the rows and the tokens of a block, and each takes all of K.

    What a step multiplies comes through shared memory. There are several buffers, so that the copies of
    later steps are under way while one is multiplied.

    Attributes:
        row_warps: Warps side by side over the rows.
        token_warps: And over the tokens.
        sets: Of 32 rows, in a warp.
        groups: Of eight tokens, in a warp.
        stages: Buffers.
        finish: Writes Y.
    """

    row_warps: int
    token_warps: int
    sets: int
    groups: int
    stages: int
    finish: Finish

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.row_warps * self.token_warps * WARP

    @property
    def rows(self) -> int:
        """Of a block."""
        return self.row_warps * self.sets * WARP_ROWS

    @property
    def tokens(self) -> int:
        """Of a block."""
        return self.token_warps * self.groups * GROUP

    def __call__(self, t: Cuda, a: Any) -> None:
        """Write the body."""
        place = Place(t)
        sums = Sums(t, self.groups, self.sets)
        lane, warp = t.let(t.thread % WARP), t.let(t.thread // WARP)
        row_warp, token_warp = t.let(warp % self.row_warps), t.let(warp // self.row_warps)
        steps = t.let(a.k_blocks // VECTORS)
        staged = t.shared(self.stages * self._buffer, "int32")
        for stage in range(self.stages - 1):
            self._copy(t, a, staged, stage, t.let(t.minimum(stage, steps - 1)))
        own_codes = t.let((token_warp * self.groups * GROUP + place.group) * VECTORS + place.part)
        own_weights = t.let(row_warp * self.sets * WARP + lane)
        with t.loop(steps) as step:
            t.run(f"bitcc_wait_copies<{self.stages - 2}>")
            t.barrier()  # so that all threads' copies are there, and nobody reads the buffer that is next
            later = t.let(step + (self.stages - 1))
            self._copy(t, a, staged, t.let(later % self.stages), t.let(t.minimum(later, steps - 1)))
            here = t.let(step % self.stages * self._buffer)
            codes = [
                staged.load_quad(here + (own_codes + group * GROUP * VECTORS) * QUAD)
                for group in range(self.groups)
            ]
            for rows in range(self.sets):
                words = staged.load_quad(here + self._codes * QUAD + (own_weights + rows * WARP) * QUAD)
                sums.add(t, words, codes, rows)
        first_row = t.let((t.block * self.row_warps + row_warp) * self.sets * WARP_ROWS)
        first_token = t.let((t.block_y * self.token_warps + token_warp) * self.groups * GROUP)
        sums.finish(t, a, place, self.finish, first_row=first_row, first_token=first_token)

    @property
    def _codes(self) -> int:
        """Quads of activations in a buffer; weights come behind them."""
        return self.tokens * VECTORS

    @property
    def _buffer(self) -> int:
        """Words of one buffer."""
        return (self._codes + self.rows // WARP_ROWS * WARP) * QUAD

    def _copy(self, t: Cuda, a: Any, staged: Array, stage: Any, step: Any) -> None:
        """Begin to copy what a step multiplies."""
        start = t.let(t.constant(0, "int32") + stage * self._buffer)
        for here in self._shares(t, self._codes):
            token = t.minimum(t.block_y * self.tokens + here // VECTORS, a.tokens - 1)
            source = codes_address(t, a, token, step * VECTORS + here % VECTORS)
            t.run("bitcc_copy", staged.address(start + here * QUAD), source)
        for here in self._shares(t, self.rows // WARP_ROWS * WARP):
            share = t.block * (self.rows // WARP_ROWS) + here // WARP
            source = Place(t, here % WARP).weights(t, a, share, step)
            t.run("bitcc_copy", staged.address(start + (self._codes + here) * QUAD), source)
        t.run("bitcc_end_copies")

    def _shares(self, t: Cuda, count: int) -> Iterator[Any]:
        """The numbers below `count` that this thread has."""
        for part in range(-(-count // self.threads)):
            here = t.let(t.thread + part * self.threads)
            if (part + 1) * self.threads <= count:
                yield here
            else:
                with t.when(here < count):
                    yield here
