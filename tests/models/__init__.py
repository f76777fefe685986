"""Small ONNX models of BitLinear as exporters write it, and what a correct compiler makes of them.

    model = models.build("dynamo", rows="2, 3", opset=20)
    packed, facts = models.pack(model)
    y = models.run(packed, models.tokens(2, 3))

``spellings/*.onnxtxt`` are graphs of one BitLinear [100 -> 60] and a dense head [60 -> 20]. Names that
a graph uses and does not make are its weights: ``weights.arrays`` has a value for each.
"""

from __future__ import annotations

from models.building import build, initializer, parse, text
from models.checking import assert_same, bit_linears, initializers, op_types
from models.running import largest_difference, pack, run, tokens
from models.table import SPELLINGS, Spelling
from models.weights import HEAD, K, N, arrays, latent, noisy, quantized

__all__ = [
    "HEAD",
    "SPELLINGS",
    "K",
    "N",
    "Spelling",
    "arrays",
    "assert_same",
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
    "run",
    "text",
    "tokens",
]
