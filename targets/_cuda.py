"""The CUDA kernels of target `cuda`, and how much each takes at once (docs/cuda.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcc.targets._cuda_element import ELEMENTS
from bitcc.targets._cuda_finish import Finish
from bitcc.targets._cuda_gemm import Gemm
from bitcc.targets._cuda_gemm_few import GemmFew
from bitcc.targets._cuda_gemv import TILE_ROWS, Gemv
from bitcc.targets._cuda_quantize import Absmax, Quantize
from bitcc.targets._cuda_tensor_cores import GROUP, WARP_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitcc.targets._cuda_element import Element
    from bitcc.targets._cuda_tir import Cuda

_TOKEN = {
    "x": "{X}*",
    "gain": "float32*",
    "absmax": "int32*",
    "k": "int32",
    "has_norm": "int32",
    "norm_eps": "float32",
}
_QUANTIZE = {
    **_TOKEN,
    "q": "int32*",
    "inverse": "float32*",
    "sums": "int32*",
    "k_blocks": "int32",
    "per_tensor": "int32",
    "act_scale": "int32",
    "act_type": "int32",
    "act_floor": "float32",
    "act_eps": "float32",
    "qmax": "float32",
    "act_min": "int32",
    "act_max": "int32",
}
_MATMUL = {
    "q": "int32*",
    "w": "int32*",
    "inverse": "float32*",
    "sums": "int32*",
    "scale": "float32*",
    "bias": "float32*",
    "y": "{X}*",
    "tokens": "int32",
    "n": "int32",
    "tiles": "int32",
    "k_blocks": "int32",
    "bias_first": "int32",
}


@dataclass(frozen=True)
class Kernel:
    """One CUDA kernel.

    Attributes:
        family: What it does; together with the element type its name.
        element: The type of X and Y.
        parameters: Their types by name, in C order.
        threads: Of a block.
        blocks: For so many at once an SM must have registers.
        rows: Of the weights that a block takes; 0 if it takes none.
        tokens: That a block takes.
        body: Writes it.
    """

    family: str
    element: Element
    parameters: dict[str, str]
    threads: int
    blocks: int
    rows: int
    tokens: int
    body: Callable[[Cuda, Any], None]

    @property
    def symbol(self) -> str:
        """Its name in C."""
        return f"bitcc_{self.family}_{self.element.name}"


def kernels(element: Element) -> tuple[Kernel, ...]:
    """The kernels for one type of X and Y."""

    def parameters(types: dict[str, str]) -> dict[str, str]:
        return {name: kind.format(X=element.storage) for name, kind in types.items()}

    finish = Finish(element)
    gemv = Gemv(tiles=2, warps=8, steps=4, finish=finish)
    few = GemmFew(warps=8, unroll=2, finish=finish)
    gemm = Gemm(row_warps=4, token_warps=1, sets=1, groups=8, stages=4, finish=finish)
    many = Gemm(row_warps=2, token_warps=2, sets=2, groups=8, stages=4, finish=finish)
    of_token, threads = parameters(_TOKEN), 512
    quantize, matmul = parameters(_QUANTIZE), parameters(_MATMUL)
    gemv_rows = gemv.tiles * TILE_ROWS
    return (
        Kernel("absmax", element, of_token, threads, 2, 0, 1, Absmax(element, threads)),
        Kernel("quantize", element, quantize, threads, 2, 0, 1, Quantize(element, threads)),
        Kernel("gemv", element, matmul, gemv.threads, 4, gemv_rows, 1, gemv),
        Kernel("gemm_few", element, matmul, few.threads, 4, WARP_ROWS, GROUP, few),
        Kernel("gemm", element, matmul, gemm.threads, 3, gemm.rows, gemm.tokens, gemm),
        Kernel("gemm_many", element, matmul, many.threads, 2, many.rows, many.tokens, many),
    )


KERNELS = tuple(kernel for element in ELEMENTS for kernel in kernels(element))
