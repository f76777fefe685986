"""What is known of one layer: the words that the passes, the manifest and the reports share."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from bitcc.errors import BitccError

PACKED = "packed"
KEPT = "kept"


def _unknown(choices: type[enum.Enum], what: str, value: object) -> BitccError:
    known = ", ".join(f"`{choice.value}`" for choice in choices)
    return BitccError(f"{what} cannot be `{value}`", hint=f"it is one of {known}")


class Numerics(str, enum.Enum):
    """What the activation quantizers of half-precision models are compiled to."""

    FP32 = "fp32"
    """Scales and codes in float32: better than the original's, and not the same."""
    FAITHFUL = "faithful"
    """The original's codes: each operation rounded to the type that it has in the graph."""

    @classmethod
    def _missing_(cls, value: object) -> Numerics:
        raise _unknown(cls, "numerics", value)


class FormatChoice(str, enum.Enum):
    """The layout in which weights of layers with int8 activations are packed."""

    AUTO = "auto"
    """`t5` for large models on targets that have kernels for it, else `t2`: docs/formats.md has the rule."""
    T2 = "t2"
    T5 = "t5"

    @classmethod
    def _missing_(cls, value: object) -> FormatChoice:
        raise _unknown(cls, "the weight format", value)


@dataclass(frozen=True)
class LayerFacts:
    """One place where the source model multiplies by a constant matrix.

    Attributes:
        name: Name of the node.
        op: Its op type in the source model.
        N: Outputs, 0 if unknown.
        K: Inputs, 0 if unknown.
        scheme: ``ternary``, ``binary`` or ``dense``.
        scope: Of the scale of a ternary or binary weight: ``tensor``, ``row``, ``group:128`` and the like.
        activation: ``int8_token``, ``int8_tensor``, ``float``, or empty if unknown.
        status: ``packed`` or ``kept``.
        reason: In words, why it was left alone, or of a packed layer why its activations stay float and what
            reads its weight besides; empty otherwise.
        bytes_before: Size of the weight in the source model.
        bytes_after: Size of what replaces it: packed weight, scale and bias, and the weight as it was where
            something else reads it.
        scale: The mean scale of a ternary or binary weight; None for a dense one.
        zeros: Its fraction of zero weights.
        positive: Its fraction of positive weights.
        numerics: ``exact`` if the op rounds as the original does; ``float32`` if the original computes
            scales and codes in half precision and the op does not; ``faithful`` if the op computes the codes
            of such an original, and only the sums and the output scale in float32; ``snapped`` if its weights
            were a few values around each level, and are the level now; empty for a layer left alone.
        max_error: Largest difference from the original layer relative to max|y| of a token, on random and
            adversarial tokens; None if it was not measured. Where ``numerics`` is not ``exact``, the
            original is taken with the packed weights, and in float32.
        merged: Name of the node that computes this layer together with others that quantise the same
            activations; empty for a layer that has a node of its own.
        fix: What the user can do about ``reason``, in words, or empty.
        levels: The values of the weights, in units of the scale. Of a dense weight, from a sample: its
            values if they are at most 16, in units of their smallest distance; otherwise the middles of
            the 32 bins of a histogram, in units of the largest magnitude.
        shares: The fraction of weights at each of ``levels``.
        entropy: Of the levels, in bits a weight; None for a histogram.
        nearest: What a dense weight comes closest to, in words, such as ``4 levels (2 bits)``.
        weight_format: The layout of the packed weight, such as ``t2``; empty for a layer left alone.
        norm: ``rms`` if the op has the norm in front of the layer, else empty.
        weight_error: Of weights that are the levels of what the original computes with noise or in half
            precision, the largest norm of a row of the difference relative to that of the row: as large as
            the output's part in random inputs; None for others, and if it was not measured.
    """

    name: str
    op: str
    N: int
    K: int
    scheme: str
    scope: str
    activation: str
    status: str
    reason: str
    bytes_before: int
    bytes_after: int
    scale: float | None = None
    zeros: float | None = None
    positive: float | None = None
    numerics: str = ""
    max_error: float | None = None
    fix: str = ""
    merged: str = ""
    weight_format: str = ""
    norm: str = ""
    levels: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    entropy: float | None = None
    nearest: str = ""
    weight_error: float | None = None
