"""From the CUDA kernels to one CUDA C source, by TVM: without a GPU, its driver or the CUDA toolkit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import tvm
from tvm import tirx

from bitcc.targets import _cuda_tir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.targets._cuda import Kernel

_ANY = "sm_75"  # the source is the same for every GPU
_FIRST_KERNEL = 'extern "C" __global__'


def source(kernels: Sequence[Kernel]) -> str:
    """A whole translation unit: for nvcc or NVRTC, with -fmad=false."""
    device, turing = (
        Path(__file__).with_name(f"cuda_{name}.h").read_text(encoding="ascii")
        for name in ("device", "turing")
    )
    return f"{device}\n#if __CUDA_ARCH__ < 800\n{turing}#endif\n{bodies(kernels)}"


def bodies(kernels: Sequence[Kernel]) -> str:
    """The kernels alone. They call CUDA's built-in functions and those of `cuda_device.h`."""
    module = tvm.IRModule({kernel.symbol: _function(kernel) for kernel in kernels})
    cuda = tvm.target.Target({"kind": "cuda", "arch": _ANY})
    passes = tirx.transform
    lowered = tvm.ir.transform.Sequential(
        [passes.BindTarget(cuda), passes.FlattenBuffer(), passes.StmtSimplify(), passes.LowerIntrin()]
    )(module)
    text = tvm.get_global_func("target.build.cuda")(lowered, cuda).inspect_source("cuda")
    return str(text[text.index(_FIRST_KERNEL) :])  # what TVM includes before them is for other kernels


def _function(kernel: Kernel) -> Any:
    def body(t: _cuda_tir.Cuda, **values: Any) -> None:
        kernel.body(t, SimpleNamespace(**values))

    return _cuda_tir.kernel(kernel.symbol, kernel.parameters, kernel.threads, kernel.blocks, body)
