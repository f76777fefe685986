"""From the kernels of a variant to one object file, by TVM and its LLVM."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import tvm
import tvm_ffi
from tvm import tirx

from bitcc.targets import _tir

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from bitcc.targets._base import Builder, Target, Tiles, Variant

_ROOM = 1 << 20  # bytes, several times the largest object

# The parameters of each kernel type of kernel.h, in its order.
_QUANTIZE = (
    "x: pointer, q: pointer, sum: pointer, scale: pointer, k: int32, k_padded: int32, "
    "lo: int32, hi: int32, tokens: int32"
)
_PACKED = "q: pointer, w: pointer, acc: pointer, k_blocks: int32, begin: int32, end: int32"
_FINISH = (
    "acc: pointer, sum: pointer, inverse: pointer, scale: pointer, bias: pointer, y: pointer, "
    "rows: int32, tokens: int32, acc_stride: int32, y_stride: int32"
)
_GEMM_PAIRS = _PACKED.replace("q: pointer", "pairs: pointer")
_PARAMETERS = {
    "absmax": "x: pointer, bits: pointer, k: int32, tokens: int32",
    "quantize": _QUANTIZE,
    "quantize_divide": _QUANTIZE,
    "gemv": _PACKED,
    "gemm_few": f"{_PACKED}, tokens: int32",
    "unpack": "w: pointer, panel: pointer, k_blocks: int32, count: int32, tiles: int32",
    "gemm": (
        "q: pointer, panel: pointer, acc: pointer, q_stride: int32, k_blocks: int32, "
        "tiles: int32, tokens: int32"
    ),
    "finish": _FINISH,
    "finish_bias_first": _FINISH,
    "gemv_float": (
        "x: pointer, w: pointer, scale: pointer, acc: pointer, k_blocks: int32, "
        "group_vectors: int32, scale_stride: int32, begin: int32, end: int32"
    ),
    "gemm_begin": "state: pointer",
    "gemm_end": "state: pointer",
    "gemv_t5": _PACKED,
    "gemm_few_t5": (
        "q: pointer, w: pointer, acc: pointer, q_stride: int32, k_blocks: int32, "
        "begin: int32, end: int32, tokens: int32"
    ),
    "unpack_t5": (
        "w: pointer, panel: pointer, k_blocks: int32, count: int32, panel_stride: int32, tiles: int32"
    ),
    "pair": (
        "q: pointer, pairs: pointer, product: pointer, clamped: pointer, q_stride: int32, "
        "k_blocks: int32, tokens: int32"
    ),
    "gemm_pairs": f"{_GEMM_PAIRS}, tokens: int32",
    "repack_t5": "w: pointer, out: pointer, k_blocks: int32, count: int32, out_blocks: int32, tiles: int32",
    "add_column": "w: pointer, acc: pointer, column: int32, by: int32, k_blocks: int32, tiles: int32",
}


def write_object(
    target: Target,
    variant: Variant,
    path: Path,
    progress: Callable[[str], None],
    families: Collection[str] | None = None,
) -> None:
    """Write the object file of the kernels of `variant`: of all, or of some families.

    The same input gives the same bytes. Nothing is left undefined but, at most, libc's `memset`.

    Raises:
        OSError: the disk has no room for it.
    """
    path.write_bytes(bytes(_ROOM))  # LLVM ends the process where it cannot write
    module(target, variant, progress, families).write_to_file(str(path), "o")


def module(
    target: Target,
    variant: Variant,
    progress: Callable[[str], None],
    families: Collection[str] | None = None,
) -> Any:
    """The kernels of `variant` in TVM's hands, which can also show their assembly."""
    functions = {}
    for family, build in variant.kernels:
        if families is not None and family not in families:
            continue
        progress(f"{variant.name}: {family}")
        symbol = variant.symbol(family)
        functions[symbol] = _function(symbol, _PARAMETERS[family], build, variant.tiles)
    llvm = tvm.target.Target(
        {
            "kind": "llvm",
            "mtriple": target.triple,
            "mcpu": variant.mcpu,
            "mattr": list(variant.mattr),
        }
    )
    return tvm.get_global_func("target.build.llvm")(_lower(tvm.IRModule(functions), llvm), llvm)


def shared(variants: Sequence[Variant]) -> dict[str, str]:
    """Kernels that an earlier variant has, to the last instruction: their symbols, and its own."""
    found: dict[str, str] = {}
    for earlier, variant in itertools.combinations(variants, 2):
        if (earlier.mcpu, earlier.mattr) != (variant.mcpu, variant.mattr):
            continue
        theirs = dict(earlier.kernels)
        for family, build in variant.kernels:
            if family in theirs and _same(family, (build, variant), (theirs[family], earlier)):
                other = earlier.symbol(family)
                found.setdefault(variant.symbol(family), found.get(other, other))
    return found


def _same(family: str, *built: tuple[Builder, Variant]) -> bool:
    """Whether the TIR of these kernels is, whatever went into it."""
    try:
        first, second = (
            _function(family, _PARAMETERS[family], build, variant.tiles) for build, variant in built
        )
    except ValueError:  # impossible tiles, of which users are told when the kernel is written
        return False
    return bool(tvm_ffi.structural_equal(first, second))


def _function(symbol: str, parameters: str, build: Builder, tiles: Tiles) -> Any:
    """The TIR function of one kernel."""

    def body(**values: Any) -> None:
        build(_tir.Tir(), SimpleNamespace(**values), tiles)

    pairs = (parameter.split(": ") for parameter in parameters.split(", "))
    return _tir.function(symbol, dict(pairs), body)


def _lower(module: Any, llvm: Any) -> Any:
    """To what the LLVM code generator takes.

    The kernels are written in its terms already: there are no schedules and no multi-dimensional
    buffers. MakePackedAPI stays out, so that a function keeps its C parameters, and so does
    NarrowDataType, because byte offsets need their 64 bits.
    """
    passes = tirx.transform
    return tvm.ir.transform.Sequential(
        [
            passes.BindTarget(llvm),
            passes.FlattenBuffer(),
            passes.StmtSimplify(),
            passes.LowerIntrin(),
        ]
    )(module)
