"""What reads only the shape of a quantised tensor does not keep the quantizer in the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
import numpy as np
import pytest

from bitcc.facts import PACKED

if TYPE_CHECKING:
    import onnx

N, K = models.N, models.K
CODES, SCALE = models.quantized(models.latent())
KNOWN = {
    "w": np.ascontiguousarray(CODES.T) * np.float32(SCALE),
    "gain": np.linspace(0.5, 2, K, dtype=np.float32),
    **models.QUANTIZER_CONSTANTS,
    "two": np.float32(2),
    "tiny": np.float32(1e-6),
    "free": np.array([0, 1], np.int32),
    "outputs": np.array([N], np.int32),
    "rows": np.array([-1, K]),
}
NORM = """
    p = Pow (x, two) m = ReduceMean <keepdims = 1> (p, axis) e = Add (m, tiny) root = Sqrt (e)
    reciprocal = Reciprocal (root) n = Mul (x, reciprocal) t = Mul (n, gain)
"""
FRONTS = {"an input": "t = Neg (x)", "a norm": NORM}
STEPS = {
    "codes": "q = Div (codes, scale)",
    "a residue": "d = Div (codes, scale) h = Sub (d, t) q = Add (t, h)",
}
BACK = """
    narrow = Cast <to = 6> (sizes) kept = Gather <axis = 0> (narrow, free)
    joined = Concat <axis = 0> (kept, outputs) shape = Cast <to = 7> (joined)
    product = MatMul (flat, w) y = Reshape (product, shape)
"""


def model(front: str, behind: str) -> onnx.ModelProto:
    """A quantizer of ``t``, which a front makes of x, and a product of two axes."""
    content = f"""
      <ir_version: 9, opset_import: ["" : 18]>
      shapes (float[batch, tokens, {K}] x) => (float[batch, tokens, {N}] y)
      {{ {front} {models.quantizer("t")} {behind} {BACK} }}"""
    return models.parse(content, KNOWN)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("step", STEPS)
def test_neither_quantizer_nor_norm_is_left_for_the_shape_of_the_output(front: str, step: str) -> None:
    original = model(FRONTS[front], f"{STEPS[step]} sizes = Shape (q) flat = Reshape (q, rows)")
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation) == (PACKED, "int8_token")
    left = [op for op in models.op_types(models.assert_same(original)) if op not in {"Neg", "Cast"}]
    assert left == ["Shape", "Gather", "Concat", "Reshape", "BitLinear", "Reshape"]


def test_the_shape_of_tokens_that_lie_otherwise_is_theirs() -> None:
    behind = """
      d = Div (codes, scale) flat = Reshape (d, rows) turned = Transpose <perm = [1, 0, 2]> (d)
      other = Shape (turned) second = Constant <value_ints = [1, 0, 2]> ()
      sizes = Gather <axis = 0> (other, second)"""
    original = model(FRONTS["an input"], behind)
    assert "ReduceMax" in models.op_types(models.assert_same(original))
