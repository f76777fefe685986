"""What a target is: a platform, and the instruction-set variants of the kernels it carries."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bitcc.targets._tir import Tir

    # Writes the body of one kernel. The arguments are those of the kernel's type in kernel.h.
    Builder = Callable[[Tir, Any, "Tiles"], None]


@dataclass(frozen=True)
class Walk:
    """How a kernel goes through packed weights: numbers to be tuned by measurement.

    Attributes:
        tiles: Weight tiles read side by side; what is left over goes one by one.
        unroll: Steps of K in the body of the loop; together their vectors divide 4.
        prefetch: Bytes from the read position to the cache line asked for; 0 for no prefetch.
        chains: Steps of K that have sums of their own, added at the end. With one tile, memory is read from
            end to end, and chains are what keeps its products from waiting for each other.
    """

    tiles: int
    unroll: int = 1
    prefetch: int = 0
    chains: int = 1


@dataclass(frozen=True)
class Tiles:
    """How much the kernels of a variant work on at once.

    Attributes:
        gemv: The walk with one token.
        gemv_t5: The same through weights in layout `t5`, one vector at a time.
        gemm_few: The walks with 2, 3 and more tokens.
        gemm_pairs: The same of its products of pairs; none where there are no such kernels.
        gemm: The walk through unpacked weights.
        gemm_tokens: With how many tokens at most.
        gemv_float: The walk with one token of floats.
        gemm_unit: Tokens are taken by `gemm` in multiples of this; what is beyond the last one is not used.
        panel_tiles: Tiles of weights that are unpacked at once.
        panel_vectors: Vectors of each of them, a multiple of 4.
        few_blocks: For more calls of `gemm_few` than this it is worth writing unpacked weights down; in
            `t5`, which takes longer to decode, for more than half as many.
    """

    gemv: Walk
    gemm_few: tuple[Walk, ...]
    gemm: Walk
    gemm_tokens: int
    gemv_float: Walk
    gemm_unit: int = 1
    panel_tiles: int = 4
    panel_vectors: int = 32
    few_blocks: int = 3
    gemv_t5: Walk = Walk(4, prefetch=2048)
    gemm_pairs: tuple[Walk, ...] = ()

    @property
    def few_tokens(self) -> int:
        """With how many tokens `gemm_few` works at most."""
        return len(self.gemm_few) + 1

    @property
    def pair_tokens(self) -> int:
        """The same of `gemm_pairs`; 1 without."""
        return len(self.gemm_pairs) + 1


def no_state(_t: Tir, _a: Any, _tiles: Tiles) -> None:
    """Write the `gemm_begin` and the `gemm_end` of an instruction set without a state."""


@dataclass(frozen=True)
class Kernels:
    """One builder for each kernel family of `bitcc_kernels` in kernel.h, under its name there.

    Those for weights in layout `t5` come together or not at all: where `t2` is as fast, weights are better
    expanded once. So do those for pairs, which are for CPUs that add bytes beside their products.
    """

    absmax: Builder
    quantize: Builder
    quantize_divide: Builder
    gemv: Builder
    gemm_few: Builder
    unpack: Builder
    gemm: Builder
    finish: Builder
    finish_bias_first: Builder
    gemv_float: Builder
    gemm_begin: Builder = no_state
    gemm_end: Builder = no_state
    gemv_t5: Builder | None = None
    gemm_few_t5: Builder | None = None
    unpack_t5: Builder | None = None
    pair: Builder | None = None
    gemm_pairs: Builder | None = None
    add_column: Builder | None = None
    repack_t5: Builder | None = None

    def __iter__(self) -> Iterator[tuple[str, Builder]]:
        """Yield (family, builder) in the order of kernel.h, of those that there are."""
        builders = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ((name, builder) for name, builder in builders if builder is not None)

    @property
    def reads_t5(self) -> bool:
        """Whether there are kernels for weights in layout `t5`."""
        return self.gemv_t5 is not None

    @property
    def has_pairs(self) -> bool:
        """Whether there are kernels for products of pairs."""
        return self.gemm_pairs is not None


@dataclass(frozen=True)
class Variant:
    """The kernels for one instruction set.

    Attributes:
        name: The suffix of the kernels' symbols and the value of BITCC_ISA, such as ``avx2``.
        features: C expression of the BITCC_CPU_* bits that the CPU must have; ``0`` for none.
        mcpu: LLVM CPU name; with `mattr` it allows what `features` promises and no more.
        mattr: LLVM features such as ``+avx2``.
        tiles: Block sizes.
        kernels: How to write each kernel.
        note: What users should know of it, as the end of a sentence; mostly nothing.
        cpus: For which it is the best one, in words.
    """

    name: str
    features: str
    mcpu: str
    mattr: tuple[str, ...]
    tiles: Tiles
    kernels: Kernels
    note: str = ""
    cpus: str = ""

    def symbol(self, family: str) -> str:
        """The C name of one of its kernels, as the table of variants has it."""
        return f"bitcc_{family}_{self.name}"


@dataclass(frozen=True)
class FileFormat:
    """What a system's linkers read and write.

    Attributes:
        library: File name of the op library.
        flags: For the C compiler; ``{zig}`` is the folder of zig's headers, ``{library}`` the file name.
        libraries: Of the system, behind all other inputs.
        hide: From an object file of TVM's, which exports every kernel, to one that exports none.
    """

    library: str
    flags: tuple[str, ...]
    libraries: tuple[str, ...]
    hide: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Target:
    """A platform that a library of kernels can be built for.

    Attributes:
        name: As written in the CLI, such as ``x86-64``.
        system: As `sys.platform` says it.
        machines: As `platform.machine()` says it.
        needs: In words, what the library runs on.
        proof: In words, what it was tested on.
        triple: LLVM triple of the kernels.
        zig_triple: The same for the C compiler, with the oldest system that the library runs on.
        variants: Best first; the last one runs on every CPU of the platform.
        files: What object files and the library look like.
        flags: More flags for the C compiler.
        gpus: Compute capabilities times ten, highest first, that the library has CUDA kernels for; newer
            GPUs translate what is there for the highest one.
    """

    name: str
    system: str
    machines: tuple[str, ...]
    needs: str
    proof: str
    triple: str
    zig_triple: str
    variants: tuple[Variant, ...]
    files: FileFormat
    flags: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()

    @property
    def library(self) -> str:
        """File name of the library."""
        return self.files.library

    @property
    def reads_t5(self) -> bool:
        """Whether its best kernels compute with weights in `t5` as they are; others expand them."""
        return not self.gpus and self.variants[0].kernels.reads_t5

    @property
    def gpu_code(self) -> tuple[str, ...]:
        """As nvcc calls it: ``sm_90`` and so on, and ``compute_90`` for what newer GPUs translate."""
        return tuple(f"sm_{gpu}" for gpu in self.gpus) + tuple(f"compute_{gpu}" for gpu in self.gpus[:1])


@dataclass(frozen=True)
class Shim:
    """The C around the kernels.

    Attributes:
        sources: The C files; they may include the headers beside them.
        include: The folder of `bitcc/kernel.h`.
        version: Of bitcc: BITCC_VERSION in C.
    """

    sources: Sequence[Path]
    include: Path
    version: str

    def files(self) -> list[Path]:
        """The C files and the headers beside them."""
        folders = sorted({source.parent for source in self.sources})
        headers = (header for folder in folders for header in sorted(folder.glob("*.h")))
        return [*self.sources, *headers]
