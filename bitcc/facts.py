"""What is known of one layer: the words that the passes, the manifest and the reports share."""

from __future__ import annotations

from dataclasses import dataclass

PACKED = "packed"
KEPT = "kept"


@dataclass(frozen=True)
class LayerFacts:
    """One place where the source model multiplies by a constant matrix.

    Attributes:
        name: Name of the node.
        op: Its op type in the source model.
        N: Outputs, 0 if unknown.
        K: Inputs, 0 if unknown.
        scheme: ``ternary``, ``binary`` or ``dense``.
        scope: Of the scale: ``tensor``, ``row``, ``group:128`` and the like, or empty.
        activation: ``int8_token``, ``int8_tensor``, ``float``, or empty for a layer that was left alone.
        status: ``packed`` or ``kept``.
        reason: Why it was left alone, in words, or why its activations stay float; empty otherwise.
        bytes_before: Size of the weight in the source model.
        bytes_after: Size of what replaces it: packed weight, scale and bias.
        scale: The mean weight scale; None for a layer that was left alone.
        zeros: Fraction of zero weights; None for a layer that was left alone.
        positive: Fraction of positive weights; None for a layer that was left alone.
        numerics: ``exact`` if the op rounds as the original does; ``float32`` if the original computes
            scales and codes in half precision and the op does not; ``snapped`` if its weights were a few
            values around each level, and are the level now; empty for a layer left alone.
        max_error: Largest difference from the original layer relative to max|y| of a token, on random and
            adversarial tokens; None if it was not measured.
        merged: Name of the node that computes this layer together with others that quantise the same
            activations; empty for a layer that has a node of its own.
        fix: What the user can do about ``reason``, in words, or empty.
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
