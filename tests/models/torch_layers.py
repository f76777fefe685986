"""BitLinear and its kin as public code writes them: one small torch module for each formula.

Each formula reads latent weights [n, k], except those of checkpoints that hold codes. ``BitLinear`` stands
for all of them: norm, then ``compute``. What they have in common beyond that is written out each time, since
the spelling is what is tested. Sources: arXiv 2402.17764 and its FAQ (``Faq``), 2310.11453 (``BitNetV1``),
transformers' ``integrations/bitnet.py`` (``Hf*``), and layers of the same meaning in other public code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

EPS = 1e-5


def straight_through(value: Tensor, quantised: Tensor) -> Tensor:
    """The quantised value forward, the gradient of the value backward: a Sub and an Add in the graph."""
    return value + (quantised - value).detach()


def absmax(x: Tensor) -> Tensor:
    """The largest magnitude of each token, [..., 1]."""
    return x.abs().max(dim=-1, keepdim=True).values.clamp_(min=EPS)


def per_token(x: Tensor) -> Tensor:
    """Activations [..., k] through int8 and back."""
    scale = 127.0 / absmax(x)
    return (x * scale).round().clamp_(-128, 127) / scale


def absmean_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(codes, what they were multiplied by) over the whole tensor."""
    scale = 1.0 / weight.abs().mean().clamp_(min=EPS)
    return (weight * scale).round().clamp_(-1, 1), scale


def two_bits(codes: Tensor) -> Tensor:
    """Codes [4, ...] in {-1, 0, 1} as bytes, the first in the lowest bits."""
    plus = (codes + 1).to(torch.uint8)
    return plus[0] | plus[1] << 2 | plus[2] << 4 | plus[3] << 6


class RmsNorm(nn.Module):
    """Written out, as models do that are older than ``nn.RMSNorm``."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(k))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * self.weight


class BitLinear(nn.Module):
    """A layer of latent weights.

    Attributes:
        int8: Whether its activations are quantised as ``bitcc::BitLinear`` does it.
        group: Columns of one weight scale; 0 for one of the tensor, -1 for one of each row.
        multiple: (n, k) must be multiples of these.
    """

    int8: ClassVar[bool] = True
    group: ClassVar[int] = 0
    multiple: ClassVar[tuple[int, int]] = (1, 1)

    def __init__(self, latent: Tensor, bias: Tensor | None, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm = norm(latent.shape[1])
        self.bias = None if bias is None else nn.Parameter(bias)
        self.store(latent)

    def store(self, latent: Tensor) -> None:
        """Keep what a checkpoint holds."""
        self.weight = nn.Parameter(latent)

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self.norm(x))

    def compute(self, x: Tensor) -> Tensor:
        """Activations [..., k] to [..., n]."""
        raise NotImplementedError

    def biased(self, y: Tensor) -> Tensor:
        """The bias behind everything else."""
        return y if self.bias is None else y + self.bias


class Faq(BitLinear):
    """The reference code: both sides dequantised before the product."""

    def compute(self, x: Tensor) -> Tensor:
        codes, scale = absmean_codes(self.weight)
        weight = straight_through(self.weight, codes / scale)
        return functional.linear(straight_through(x, per_token(x)), weight, self.bias)


class Quotient(BitLinear):
    """Both scales are steps: divide by them to quantise, multiply to dequantise."""

    def compute(self, x: Tensor) -> Tensor:
        step = absmax(x) / 127.0
        delta = self.weight.abs().mean().clamp(min=EPS)
        weight = torch.clamp(torch.round(self.weight / delta), -1, 1) * delta
        return functional.linear(torch.clamp(torch.round(x / step), -128, 127) * step, weight, self.bias)


class EpsAdded(BitLinear):
    """The epsilon is added rather than a floor."""

    def compute(self, x: Tensor) -> Tensor:
        scale = 127.0 / (x.abs().amax(dim=-1, keepdim=True) + EPS)
        gamma = self.weight.abs().mean() + EPS
        weight = straight_through(self.weight, torch.round(self.weight / gamma).clamp(-1, 1) * gamma)
        codes = torch.round(x * scale).clamp(-127, 127)
        return functional.linear(straight_through(x, codes / scale), weight, self.bias)


class CodesDivided(BitLinear):
    """A product of codes, 128 levels, and one division that takes the bias along."""

    def compute(self, x: Tensor) -> Tensor:
        x_scale = 128.0 / absmax(x)
        w_scale = 1.0 / self.weight.abs().mean().clamp(min=EPS)
        scaled_x, scaled_w = x * x_scale, self.weight * w_scale
        x_codes = straight_through(scaled_x, scaled_x.round().clamp(-128, 127))
        w_codes = straight_through(scaled_w, scaled_w.round().clamp(-1, 1))
        return functional.linear(x_codes, w_codes, self.bias) / (w_scale * x_scale)


class CodesMultiplied(BitLinear):
    """A product of codes, two multiplications, and the bias last; the residue is of the weight itself."""

    def compute(self, x: Tensor) -> Tensor:
        scale = 127.0 / absmax(x)
        gamma = self.weight.abs().mean().clamp(min=EPS)
        w_codes = straight_through(self.weight, (self.weight / gamma).round().clamp(-1, 1))
        x_codes = (x * scale).round().clamp(-127, 127)
        return self.biased(functional.linear(x_codes, w_codes) * (1.0 / scale) * gamma)


class HfOnline(BitLinear):
    """transformers' AutoBitLinear, online: in float32 whatever the model's type, no residue."""

    def compute(self, x: Tensor) -> Tensor:
        wide = self.weight.float()
        scale = 1.0 / wide.abs().mean().clamp_(min=EPS)
        weight = ((wide * scale).round().clamp(-1, 1) / scale).to(self.weight.dtype)
        return functional.linear(per_token(x.float()).to(x.dtype), weight, self.bias)


class HfOffline(BitLinear):
    """transformers' AutoBitLinear, offline: float codes, and a scale that takes the bias along."""

    def store(self, latent: Tensor) -> None:
        codes, scale = absmean_codes(latent)
        self.weight = nn.Parameter(codes)
        self.register_buffer("weight_scale", (1 / scale).reshape(1))

    def compute(self, x: Tensor) -> Tensor:
        quantised = per_token(x.float()).to(x.dtype)
        return functional.linear(quantised, self.weight, self.bias) * self.weight_scale


class HfPacked(BitLinear):
    """transformers' BitLinear: row r of a byte matrix holds the rows r, r + n/4, r + n/2 and r + 3n/4."""

    multiple = (4, 1)

    def store(self, latent: Tensor) -> None:
        codes, scale = absmean_codes(latent)
        self.register_buffer("packed", two_bits(codes.reshape(4, -1, latent.shape[1])))
        self.register_buffer("weight_scale", scale.reshape(1))

    def compute(self, x: Tensor) -> Tensor:
        rows, k = self.packed.shape
        weight = torch.zeros((4 * rows, k), dtype=torch.uint8)
        for i in range(4):
            weight[i * rows : (i + 1) * rows] = (self.packed & 3 << 2 * i) >> 2 * i
        scale = 127.0 / absmax(x)
        codes = (x * scale).round().clamp(-128, 127).to(torch.int8)
        y = functional.linear(codes.to(x.dtype), weight.to(x.dtype) - 1)
        return self.biased(y / (scale * self.weight_scale))


class BinaryTokens(BitLinear):
    """Signs around the mean, with +1 for zero; per-token int8."""

    def compute(self, x: Tensor) -> Tensor:
        centered = self.weight - self.weight.mean()
        signs = torch.where(centered >= 0, 1.0, -1.0).to(x.dtype)
        return functional.linear(per_token(x), signs * self.weight.abs().mean(), self.bias)


class BitNetV1(BitLinear):
    """Signs around the mean; one activation scale for the whole input."""

    def compute(self, x: Tensor) -> Tensor:
        signs = torch.sign(self.weight - self.weight.mean())
        beta, gamma = self.weight.abs().mean(), x.abs().max()
        codes = torch.clamp(torch.round(x * 127 / gamma), -127, 127)
        return self.biased(functional.linear(codes, signs) * (beta * gamma / 127))


class PerTensor(BitLinear):
    """Absmean weights, one activation scale for the whole input."""

    def compute(self, x: Tensor) -> Tensor:
        codes, w_scale = absmean_codes(self.weight)
        scale = 127.0 / x.abs().max().clamp(min=EPS)
        quantised = straight_through(x, (x * scale).round().clamp(-128, 127) / scale)
        return functional.linear(quantised, straight_through(self.weight, codes / w_scale), self.bias)


class ProductFirst(BitLinear):
    """The input times 127, divided by its maximum: two roundings in another order."""

    def compute(self, x: Tensor) -> Tensor:
        most = absmax(x)
        codes, scale = absmean_codes(self.weight)
        quantised = (x * 127.0 / most).round().clamp(-128, 127) * most / 127.0
        return functional.linear(quantised, codes / scale, self.bias)


class WeightOnly(BitLinear):
    """Float activations and a division behind the product."""

    int8 = False

    def compute(self, x: Tensor) -> Tensor:
        codes, scale = absmean_codes(self.weight)
        return self.biased(functional.linear(x, codes) / scale)


class TriLm(BitLinear):
    """Float activations; the epsilon is added, the weights carry the scale and the residue."""

    int8 = False

    def compute(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean() + EPS
        quantised = torch.clamp(torch.round(self.weight / scale), -1, 1) * scale
        return functional.linear(x, straight_through(self.weight, quantised), self.bias)


class Threshold(BitLinear):
    """Two comparisons instead of a rounding."""

    int8 = False

    def compute(self, x: Tensor) -> Tensor:
        delta = self.weight.abs().mean()
        z = self.weight / delta
        codes = torch.where(z > 0.5, 1.0, torch.where(z < -0.5, -1.0, 0.0)).to(x.dtype)
        return functional.linear(x, codes * delta, self.bias)


class BinaryOnly(BitLinear):
    """Signs times the mean magnitude; float activations."""

    int8 = False

    def compute(self, x: Tensor) -> Tensor:
        beta = self.weight.abs().mean()
        return functional.linear(x, straight_through(self.weight, self.weight.sign() * beta), self.bias)


class Rows(BitLinear):
    """A scale for each row, in the weights."""

    int8, group = False, -1

    def compute(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean(dim=1, keepdim=True).clamp(min=EPS)
        return functional.linear(x, (self.weight / scale).round().clamp(-1, 1) * scale, self.bias)


class RowsInt8(BitLinear):
    """Codes in int8 and a scale for each row behind the product."""

    int8, group = False, -1

    def store(self, latent: Tensor) -> None:
        scale = latent.abs().mean(dim=1).clamp(min=EPS)
        self.register_buffer("codes", (latent / scale[:, None]).round().clamp(-1, 1).to(torch.int8))
        self.register_buffer("scale", scale)

    def compute(self, x: Tensor) -> Tensor:
        return self.biased(functional.linear(x, self.codes.to(x.dtype)) * self.scale)


class Groups(BitLinear):
    """A scale for each group of columns."""

    int8, group, multiple = False, 32, (1, 32)

    def compute(self, x: Tensor) -> Tensor:
        n, k = self.weight.shape
        grouped = self.weight.reshape(n, k // self.group, self.group)
        scale = grouped.abs().mean(dim=-1, keepdim=True).clamp(min=EPS)
        quantised = ((grouped / scale).round().clamp(-1, 1) * scale).reshape(n, k)
        return functional.linear(x, straight_through(self.weight, quantised), self.bias)


class GroupsPacked(BitLinear):
    """Four consecutive columns in a byte, a scale for each group of 64."""

    int8, group, multiple = False, 64, (1, 64)

    def store(self, latent: Tensor) -> None:
        grouped = latent.reshape(-1, self.group)
        scale = grouped.abs().mean(dim=1, keepdim=True).clamp(min=EPS)
        codes = (grouped / scale).round().clamp(-1, 1).reshape(latent.shape[0], -1, 4)
        self.register_buffer("packed", two_bits(codes.movedim(-1, 0)))
        self.register_buffer("scale", scale.reshape(latent.shape[0], -1, 1))

    def compute(self, x: Tensor) -> Tensor:
        planes = [(self.packed & 3 << 2 * i) >> 2 * i for i in range(4)]
        codes = torch.stack(planes, dim=-1).reshape(*self.scale.shape[:2], self.group).to(x.dtype) - 1
        return functional.linear(x, (codes * self.scale).reshape(self.scale.shape[0], -1), self.bias)


FORMULAS: dict[str, type[BitLinear]] = {formula.__name__: formula for formula in BitLinear.__subclasses__()}
"""Every formula by its name."""
