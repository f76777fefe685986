"""Small ONNX models of BitLinear as exporters write it, and what a correct compiler makes of them.

    model = models.build("dynamo", rows="2, 3", opset=20)
    packed, facts = models.pack(model)
    y = models.run(packed, models.tokens(2, 3))

``spellings/*.onnxtxt`` are graphs of one BitLinear [100 -> 60] and a dense head [60 -> 20]. Names that
a graph uses and does not make are its weights: ``weights.arrays`` has a value for each. Those in
``spellings/weight_only`` have float activations: a TernaryLinear.
"""

from __future__ import annotations

from models.building import build, initializer, parse, text
from models.checking import assert_same, attributes, bit_linears, initializers, op_types, read
from models.parts import assemble
from models.quantizer import QUANTIZER_CONSTANTS, quantizer
from models.running import largest_difference, pack, run, tokens
from models.table import LEADING, NO_QUANTIZER, SPELLINGS, TENSOR, WEIGHT_ONLY, Spelling, WeightOnly
from models.weights import HALVES, HEAD, K, N, arrays, latent, noisy, quantized

__all__ = [
    "HALVES",
    "HEAD",
    "LEADING",
    "NO_QUANTIZER",
    "QUANTIZER_CONSTANTS",
    "SPELLINGS",
    "TENSOR",
    "WEIGHT_ONLY",
    "K",
    "N",
    "Spelling",
    "WeightOnly",
    "arrays",
    "assemble",
    "assert_same",
    "attributes",
    "bit_linears",
    "build",
    "initializer",
    "initializers",
    "largest_difference",
    "latent",
    "noisy",
    "op_types",
    "pack",
    "parse",
    "quantized",
    "quantizer",
    "read",
    "run",
    "text",
    "tokens",
]
