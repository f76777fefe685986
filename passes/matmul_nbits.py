"""Dequantise the weight of onnxruntime's MatMulNBits.

B is uint8 [N, blocks, block_size * bits / 8], the first column in the lowest bits; scales are [N, blocks].
Zero points are a number for each block, or uint8 [N, ceil(blocks * bits / 8)] packed as B is; without them
they are 2^(bits - 1). The columns behind K pad the last block.
Source: onnxruntime, docs/ContribOperators.md, com.microsoft.MatMulNBits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bitcc.passes._refused import Refused

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.passes.constants import Constants

    Array = NDArray[Any]

MATMUL_NBITS = ("com.microsoft", "MatMulNBits")
_WIDTHS = (2, 4, 8)


class _Inputs(NamedTuple):
    """The inputs of the node behind A, None where it has none."""

    b: ir.Value | None = None
    scales: ir.Value | None = None
    zero_points: ir.Value | None = None
    g_idx: ir.Value | None = None
    bias: ir.Value | None = None


def bias_of(node: ir.Node) -> ir.Value | None:
    """What it adds, [N]."""
    return _Inputs(*node.inputs[1:6]).bias


def dequantized(node: ir.Node, constants: Constants) -> Array:
    """The weight as float32 [N, K].

    Raises:
        Refused: its inputs are not what the op defines, or the order of the columns is another.
    """
    get = node.attributes.get_int
    n, k, bits, block = get("N", 0), get("K", 0), get("bits", 4), get("block_size", 0)
    inputs = _Inputs(*node.inputs[1:6])
    if inputs.g_idx is not None:
        raise Refused("it reorders its columns (g_idx)", fix="quantise it without act_order")
    if inputs.b is None or inputs.scales is None or min(n, k, block) < 1 or bits not in _WIDTHS or block % 8:
        raise Refused(
            f"N = {n}, K = {k}, bits = {bits} and block_size = {block} are no weight of MatMulNBits"
        )
    blocks = -(-k // block)
    packed = constants.array(inputs.b)
    scales = constants.array(inputs.scales).astype(np.float32)
    if packed.dtype != np.uint8 or packed.size != n * blocks * block * bits // 8 or scales.size != n * blocks:
        raise Refused(f"its weight is {packed.dtype} {list(packed.shape)} with {scales.size} scales")
    codes = _unpacked(packed.reshape(n, blocks, -1), bits).astype(np.float32)
    codes -= _zero_points(inputs.zero_points, (n, blocks), bits, constants)[..., np.newaxis]
    codes *= scales.reshape(n, blocks, 1)
    return codes.reshape(n, -1)[:, :k]


def _zero_points(value: ir.Value | None, shape: tuple[int, int], bits: int, constants: Constants) -> Array:
    """float32 of that shape."""
    if value is None:
        return np.full(shape, 2 ** (bits - 1), np.float32)
    array = constants.array(value)
    if array.dtype == np.uint8:
        if array.size != shape[0] * -(-shape[1] * bits // 8):
            raise Refused(f"its zero points are uint8 {list(array.shape)}")
        array = _unpacked(array.reshape(shape[0], -1), bits)[:, : shape[1]]
    if array.size != math.prod(shape):
        raise Refused(f"its zero points are {array.dtype} {list(array.shape)}")
    return array.reshape(shape).astype(np.float32)


def _unpacked(packed: Array, bits: int) -> Array:
    """uint8 [..., bytes] -> uint8 [..., bytes * 8 / bits], lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (packed[..., np.newaxis] >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(*packed.shape[:-1], -1)
