"""The network: a decoder of BitNet b1.58 blocks over bytes.

Axes: b batch, s new tokens, p cached tokens, d width, h heads, e width of a head.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALLEST_SCALE = 1e-5
NORM_EPSILON = 1e-5
ROTARY_BASE = 10000.0


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; every linear layer has multiples of 64 on both sides."""

    vocabulary: int = 256
    width: int = 256
    layers: int = 3
    heads: int = 4
    hidden: int = 768

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


class BitLinear(nn.Linear):
    """Linear layer with trits as weights and int8 codes as inputs (arXiv 2402.17764).

    The latent weight may be stored in float16 (after training): all arithmetic is float32.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., k) -> (..., n)."""
        weight = self.weight.float()
        # Straight-through estimators: the gradient sees the value before rounding.
        weight = weight + (_ternary(weight) - weight).detach()
        x = x + (_int8(x) - x).detach()
        return functional.linear(x, weight)


def _ternary(weight: Tensor) -> Tensor:
    """Round to {-1, 0, 1} / s, where 1 / s is the mean magnitude of the whole tensor."""
    scale = 1.0 / weight.abs().mean().clamp(min=SMALLEST_SCALE)
    return (weight * scale).round().clamp(-1, 1) / scale


def _int8(x: Tensor) -> Tensor:
    """Round each token to -128..127, scaled so that its largest magnitude is 127."""
    scale = 127.0 / x.abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST_SCALE)
    return (x * scale).round().clamp(-128, 127) / scale


class RmsNorm(nn.Module):
    """Division by the root mean square of the last axis, with a gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPSILON) * self.gain


@dataclass(frozen=True)
class Positions:
    """What attention has to know about the places of the new tokens."""

    cosine: Tensor  # (s, e)
    sine: Tensor  # (s, e)
    visible: Tensor  # (s, p + s): which keys a query may look at

    @classmethod
    def of(cls, past: int, new: int, width: int) -> "Positions":
        """Positions of `new` tokens that follow `past` cached ones."""
        keys = torch.arange(past + new)
        queries = keys[past:]
        rates = ROTARY_BASE ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
        angles = queries[:, None].float() * torch.cat((rates, rates))
        return cls(angles.cos(), angles.sin(), keys[None, :] <= queries[:, None])

    def rotate(self, x: Tensor) -> Tensor:
        """(b, h, s, e) -> (b, h, s, e), each pair (i, i + e / 2) turned by its angle."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cosine + torch.cat((-second, first), dim=-1) * self.sine


class Attention(nn.Module):
    """Causal self-attention with rotary positions and a cache of keys and values."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = BitLinear(shape.width, shape.width)
        self.key = BitLinear(shape.width, shape.width)
        self.value = BitLinear(shape.width, shape.width)
        self.output = BitLinear(shape.width, shape.width)

    def forward(self, x: Tensor, past: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        """(b, s, d), (2, b, h, p, e) -> (b, s, d), (2, b, h, p + s, e)."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        query, key = positions.rotate(query), positions.rotate(key)
        present = torch.cat((past, torch.stack((key, value))), dim=-2)
        key, value = present.unbind()
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(~positions.visible, -math.inf).softmax(dim=-1)
        return self.output((weights @ value).transpose(1, 2).flatten(-2)), present


class GatedMlp(nn.Module):
    """down(silu(gate x) * up x)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = BitLinear(shape.width, shape.hidden)
        self.up = BitLinear(shape.width, shape.hidden)
        self.down = BitLinear(shape.hidden, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = RmsNorm(shape.width)
        self.attention = Attention(shape)
        self.mlp_norm = RmsNorm(shape.width)
        self.mlp = GatedMlp(shape)

    def forward(self, x: Tensor, past: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        """(b, s, d), (2, b, h, p, e) -> (b, s, d), (2, b, h, p + s, e)."""
        mixed, present = self.attention(self.attention_norm(x), past, positions)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), present


class TinyLm(nn.Module):
    """Byte-level language model; embedding and head stay float32."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.5)

    def forward(self, tokens: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the next byte, and the cache that includes the new tokens.

        Args:
            tokens: (b, s) int64.
            past: (layers, 2, b, h, p, e); p is 0 at the start of a text.

        Returns:
            Logits (b, s, vocabulary) and the cache (layers, 2, b, h, p + s, e).
        """
        positions = Positions.of(past.shape[-2], tokens.shape[1], self.shape.head_width)
        x = self.embedding(tokens)
        caches = []
        for block, cached in zip(self.blocks, past.unbind(), strict=True):
            x, present = block(x, cached, positions)
            caches.append(present)
        return self.head(self.norm(x)), torch.stack(caches)

    def empty_cache(self, batch: int) -> Tensor:
        """(layers, 2, b, h, 0, e)."""
        shape = self.shape
        return torch.zeros(shape.layers, 2, batch, shape.heads, 0, shape.head_width)

    @torch.no_grad()
    def store_latent_weights_in_half_precision(self) -> None:
        """Round the latent weights to float16, which halves the file and keeps the trits."""
        for layer in self.modules():
            if isinstance(layer, BitLinear):
                layer.weight = nn.Parameter(layer.weight.half(), requires_grad=False)
