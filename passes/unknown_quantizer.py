"""Say why an activation quantizer is not one that the op computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitcc.passes import qonnx
from bitcc.passes._refused import Refused
from bitcc.passes.act_codes import rounding_in_front, skip_codes
from bitcc.passes.normal_form import producer

if TYPE_CHECKING:
    import onnx_ir as ir

    from bitcc.passes.constants import Constants


def _other_rounding(node: ir.Node) -> Refused:
    where = f"`{node.name or node.outputs[0].name}` ({node.op_type})"
    if node.op_type != "Round":
        return Refused(
            f"its activations are rounded by {where}, and not to the nearest even number",
            fix="round them with torch.round or another op that is exported as Round",
        )
    return Refused(
        f"what {where} rounds is changed in front of the product by more than one scale for each token",
        fix="for integer kernels, quantise what each product reads by itself, with one scale for each token",
    )


def no_codes(value: ir.Value, constants: Constants) -> Refused:
    """Why a value has no codes that are read."""
    node = value.producer()
    if node is None or not (qonnx.is_quantizer(node) or producer(value, "DequantizeLinear") is node):
        if (rounding := rounding_in_front(value, constants)) is not None:
            return _other_rounding(rounding)
        if (sign := producer(skip_codes(value, constants), "Sign")) is not None:
            where = f"`{sign.name or sign.outputs[0].name}`"
            return Refused(
                f"its activations are signs, made by {where}, and no int8 codes",
                fix="for integer kernels, quantise them to int8, as BitNet b1.58 does",
            )
        return Refused(
            "there is no activation quantizer in front of it",
            fix="if it was trained with one, export it in eval mode with the quantizer in the graph",
        )
    if len(node.inputs) > 1 and node.inputs[1] not in constants:
        return Refused(
            "its activation quantizer has a zero point, or codes that are not int8",
            fix="for integer kernels, quantise symmetrically to int8, as BitNet b1.58 does",
        )
    return fixed_scale()


def fixed_scale() -> Refused:
    """Why a quantizer with a constant scale is none of a BitLinear."""
    return Refused(
        "the scale of its activation quantizer is fixed, and not that of a token or a tensor",
        fix="for integer kernels, scale by the largest magnitude, as BitNet b1.58 does",
    )


def other_scale() -> Refused:
    """Why codes are not those of activations in front of them."""
    return Refused(
        "the activation codes are dequantised by another scale than they were quantised by",
        fix="divide the codes by the scale that the activations were multiplied by",
    )
