"""What is known of a BitLinear once it was found: all that its rewrite and its proof need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bitcc.formats import PackedMatrix

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from bitcc.ops import BitLinear
    from bitcc.passes.copies import Copy
    from bitcc.passes.layout import Layout
    from bitcc.passes.matmul import Product
    from bitcc.passes.ternary import Ternary
    from bitcc.ternary_linear import TernaryLinear


@dataclass(frozen=True)
class Layer:
    """A proven shape of a BitLinear: what replaces it is ``op`` of ``x`` with these numbers.

    Attributes:
        name: The name of the product's node.
        product: The matrix product.
        x: What is quantised, [..., K] in ``x_layout``.
        y: What the layer computes, [..., N] in ``y_layout``.
        x_type: The type of ``x``.
        y_type: The type of ``y``.
        op: The op that replaces it, with its attributes.
        ternary: The exact weights.
        w_scale: float32, in the shape that ``op`` wants.
        bias: float32 [1] or [N].
        gain: Of the norm that the op has, float32 [1] or [K]; None without a norm.
        bytes_before: Size of the weight in the source model.
        note: Why the activations stay float, where they do.
        fix: What the user can do about that, in words, or empty.
        reshapes: The nodes that give ``x`` another shape in front of the product, first to last.
        restored: Whether ``y`` has the shape of ``x`` again, so that the op needs no ``reshapes``.
        x_layout: What brings ``x`` to [..., K].
        y_layout: What brings [..., N] to ``y``.
        codes: The activation codes, shaped as ``x`` but for Transposes; None where activations stay float.
        bases: Tensors in front of the layer, of the shape of ``x``, that its nodes add and take off again.
        copies: Values in front of the layer that are ``x`` computed once more, or its axes in another order.
    """

    name: str
    product: Product
    x: ir.Value
    y: ir.Value
    x_type: ir.DataType
    y_type: ir.DataType
    op: BitLinear | TernaryLinear
    ternary: Ternary
    w_scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    bytes_before: int
    note: str = ""
    fix: str = ""
    reshapes: tuple[ir.Node, ...] = ()
    restored: bool = False
    x_layout: Layout = ()
    y_layout: Layout = ()
    codes: ir.Value | None = None
    gain: NDArray[np.float32] | None = None
    bases: tuple[ir.Value, ...] = ()
    copies: tuple[Copy, ...] = ()

    @property
    def node(self) -> ir.Node:
        """The node that multiplies."""
        return self.product.node

    def without_codes(self) -> Layer:
        """The layer without its codes, which are large."""
        codes = PackedMatrix.empty(self.ternary.codes.fmt, (0, 0))
        return replace(self, ternary=replace(self.ternary, codes=codes))
