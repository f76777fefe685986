"""Check that a layer with faithful numerics has the activation codes of its half-precision original.

Outputs cannot prove this: the original rounds its sums to half precision too, which is noise larger than a
code that moves. So the proof is in two parts. The codes, here: the original nodes from x to the codes,
computed by onnx's reference evaluator, which rounds every result to its type as the standard says, must
give the op's codes, all of them. (onnxruntime's CPU kernels are no judge of that: they compute chains of
float16 nodes in float32 and round at the end, and have no bfloat16 Round.) And everything else - weights,
scales, bias, what is divided out - in float32, like any layer: ``prove``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from bitcc import ops
from bitcc.passes._refused import Refused
from bitcc.passes.between import between
from bitcc.passes.trial_tokens import tokens, with_copies

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants
    from bitcc.passes.layer import Layer


def check_codes(layer: Layer, model: ir.Model, constants: Constants) -> None:
    """Compare the codes of random and adversarial tokens.

    Raises:
        Refused: one of them differs, or the original nodes cannot be evaluated.
    """
    if not isinstance(layer.op, ops.BitLinear) or layer.codes is None:
        return
    nodes, leaves = between(replace(layer, y=layer.codes), (), constants, loose=True)
    copies = [copy.value for copy in layer.copies]
    leaves = [v for v in leaves if v not in copies]
    function = onnx.helper.make_function(
        "bitcc.proof",
        "quantizer",
        [str(v.name) for v in (layer.x, *copies, *leaves)],
        [str(layer.codes.name)],
        [ir.to_proto(node) for node in nodes],
        [onnx.helper.make_opsetid("", model.opset_imports[""])],
    )
    feeds = {str(v.name): constants.array(v) for v in leaves}
    for x in tokens(layer, layer.op.K):
        narrow = x.astype(layer.x_type.numpy())
        given = {str(v.name): array for v, array in with_copies(layer, narrow).items()}
        want = _evaluate(function, feeds | given).astype(np.float32)
        codes, inverse = ops.quantize(narrow.astype(np.float32).reshape(-1, layer.op.K), layer.op)
        got = np.where(np.isnan(inverse), np.float32(np.nan), codes.astype(np.float32)).reshape(x.shape)
        if not np.array_equal(got, np.where(_poisoned(want), np.float32(np.nan), want), equal_nan=True):
            raise Refused(
                "its activation codes could not be reproduced in half precision", fix="--numerics fp32"
            )


def _evaluate(function: onnx.FunctionProto, feeds: dict[str, NDArray[Any]]) -> NDArray[Any]:
    try:
        with np.errstate(all="ignore"):
            outputs: Any = ReferenceEvaluator(function).run(None, feeds, {})
    except Exception as error:  # numpy and the evaluator raise whatever they like
        raise Refused(
            f"its activation quantizer cannot be evaluated: {error}", fix="--numerics fp32"
        ) from error
    return np.asarray(outputs[0])


def _poisoned(codes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tokens with a code that is NaN; it reaches all outputs of the token."""
    return np.asarray(np.isnan(codes).any(axis=-1, keepdims=True))
