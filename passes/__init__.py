"""Graph passes over ``onnx_ir`` models, usable alone in any onnx_ir pipeline.

    import onnx_ir as ir
    from bitcc import passes

    model = ir.load("model.onnx")
    passes.PIPELINE(model)
    for layer in model.meta[passes.FACTS]:
        print(layer.name, layer.status, layer.reason)

The files, in the order of the flow: ``elementwise``, ``reductions`` and ``constants`` (fold),
``normal_form``, ``layout``, ``einsum``, ``weight``, ``matmul``, ``levels``, ``half_noise``, ``ternary``,
``scales``, ``absmax``, ``activation``, ``epilogue`` and ``detect`` (find), ``runner``, ``prove_weights`` and
``prove``, ``copies`` and ``siblings`` (merge), ``rms_norm`` and ``fuse_norms``, ``pack``, and
``pack_bit_linear``, the pass; ``numerics`` and ``prove_codes`` for half precision; ``nearest`` and
``weight_facts`` describe what is found.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from bitcc import ops
from bitcc.passes.pack_bit_linear import FACTS, PackBitLinearPass

__all__ = ["FACTS", "PIPELINE", "PackBitLinearPass", "pipeline"]


_DOMAINS_WITH_KERNELS = frozenset({ops.DOMAIN, "com.microsoft", "ai.onnx.ml"})


def pipeline(pack: PackBitLinearPass) -> ir.passes.Sequential:
    """The passes in their order: local functions are inlined first, since detection reads one graph.

    Those of a runtime's own ops stay: their bodies are for runtimes without a kernel.
    """
    inline = InlinePass(criteria=lambda function: function.domain not in _DOMAINS_WITH_KERNELS)
    return ir.passes.Sequential(inline, pack)


PIPELINE = pipeline(PackBitLinearPass())
"""The passes with their defaults: ``PIPELINE(model)`` rewrites an ``onnx_ir.Model`` in place."""
