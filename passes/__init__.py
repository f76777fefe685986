"""Graph passes over ``onnx_ir`` models, usable alone in any onnx_ir pipeline.

    import onnx_ir as ir
    from bitcc import passes

    model = ir.load("model.onnx")
    passes.PIPELINE(model)
    for layer in model.meta[passes.FACTS]:
        print(layer.name, layer.status, layer.reason)

The files, in the order of the flow: ``calls`` and ``inline``, ``unfuse`` and ``inferred_shapes``
(prepare), ``elementwise``, ``table``, ``reductions``, ``integer_types``, ``sequences``,
``gathered``, ``contrib_quantizers``, ``picked``, ``sizes`` and ``constants`` (fold),
``normal_form``, ``finite``, ``bounds``, ``layout``, ``split``, ``einsum``, ``repeated``,
``integer_products``, ``matmul_nbits``, ``qonnx``, ``matrix``, ``weight``, ``matmul``,
``magnitudes``, ``extent``, ``levels``, ``half_noise``, ``steps``, ``ternary``, ``structure``,
``constant_row``, ``scales``, ``elements``, ``element_moves``, ``largest``, ``maximum``, ``absmax``,
``act_scale``, ``act_codes``, ``unknown_quantizer``, ``activation``, ``residues``, ``epilogue``,
``precision``, ``layer`` and ``detect`` (find), ``parts`` and ``joined`` (layers in pieces),
``between``, ``runner``, ``trial_tokens``, ``prove_weights`` and ``prove``, ``copies`` and
``siblings`` (merge), ``rms_norm`` and ``fuse_norms``, ``shape_readers``, ``pack`` and
``lower_qonnx``, and ``weight_format`` and ``pack_bit_linear``, the pass; ``numerics`` and
``prove_codes`` for half precision; ``nearest`` and ``weight_facts`` describe what is found.
"""

from __future__ import annotations

import onnx_ir as ir

from bitcc.passes.inline import InlineLayersPass
from bitcc.passes.pack_bit_linear import FACTS, PackBitLinearPass

__all__ = ["FACTS", "PIPELINE", "PackBitLinearPass", "pipeline"]


def pipeline(pack: PackBitLinearPass) -> ir.passes.Sequential:
    """The passes in their order: functions with layers are inlined first, since detection reads one graph."""
    return ir.passes.Sequential(InlineLayersPass(pack.min_weights), pack)


PIPELINE = pipeline(PackBitLinearPass())
"""The passes with their defaults: ``PIPELINE(model)`` rewrites an ``onnx_ir.Model`` in place."""
