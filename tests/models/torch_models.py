"""Generated models: every formula, written by every exporter, at realistic sizes, from trained-like weights.

    for recipe in RECIPES:
        net = network(recipe)
        x = tokens(recipe, net)
        export(recipe, net, x, path)

``RECIPES`` is a covering array: any two choices of ``FACTORS`` that can be exported together meet in one.
"""

from __future__ import annotations

import io
import math
import warnings
from contextlib import redirect_stdout
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from models import weights
from models.covering import Rule, covering_array
from models.optimisers import OPTIMISERS
from models.torch_layers import EPS, FORMULAS, RmsNorm

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from models.optimisers import Tool
    from models.torch_layers import BitLinear

    Arrays = list[NDArray[Any]]

SHAPES = {  # (n, k)
    "small": (64, 128),  # 8192 elements: exporters fold its quantizer
    "odd": (257, 331),
    "down": (640, 1728),  # the proportions of a 2560 x 6912 network
    "up": (1728, 640),
    "real": (2560, 6912),
}
NORMS = {
    "none": lambda _k: nn.Identity(),
    "rms": RmsNorm,
    "nn.RMSNorm": partial(nn.RMSNorm, eps=EPS),
    "LayerNorm": nn.LayerNorm,
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
HEAD = 24

EXPORTERS = {  # (dynamo, opset, whether it optimises)
    "dynamo18": (True, 18, True),
    "dynamo18-plain": (True, 18, False),
    "dynamo23": (True, 23, True),
    "dynamo23-plain": (True, 23, False),
    "torchscript17": (False, 17, True),
    "torchscript17-plain": (False, 17, False),
}
FACTORS: dict[str, tuple[Any, ...]] = {
    "formula": tuple(FORMULAS),
    "exporter": tuple(EXPORTERS),
    "dtype": tuple(DTYPES),
    "norm": tuple(NORMS),
    "bias": (False, True),
    "shape": ("down", "up", "odd", "small"),
    "weights": ("gaussian", "heavy", "outlier", "uniform"),
    "rank": (3, 2),
    "dynamic": (True, False),
}


def _unfit(formula: type[BitLinear]) -> tuple[str, ...]:
    """The shapes that are no multiples of the formula's blocks."""
    blocks = formula.multiple
    return tuple(name for name, shape in SHAPES.items() if shape[0] % blocks[0] or shape[1] % blocks[1])


_TORCHSCRIPT = ("torchscript17", "torchscript17-plain")
_DYNAMO_PLAIN = ("dynamo18-plain", "dynamo23-plain")
_SHIFTED = ("HfPacked", "GroupsPacked")
_ONNXRUNTIME = ("onnxruntime_basic", "onnxruntime_extended")
IMPOSSIBLE = (
    Rule({"exporter": _TORCHSCRIPT, "norm": ("nn.RMSNorm",)}, "TorchScript exports no such norm", "rms_norm"),
    Rule(
        {"exporter": _TORCHSCRIPT, "formula": _SHIFTED}, "TorchScript exports no bits of integers", "bitwise"
    ),
    Rule(
        {"dtype": ("bfloat16",), "norm": ("rms", "nn.RMSNorm")},
        "onnxruntime has no such norm in bfloat16",
        "Could not find an implementation",
    ),
    Rule(
        {"exporter": ("dynamo18", "dynamo23"), "dtype": ("bfloat16",), "shape": ("small",)},
        "the exporter folds the mean of small weights in bfloat16, which is wrong by factors",
        "dense|of max",
    ),
    *(
        Rule({"formula": (name,), "shape": sizes}, "its weights are stored in other blocks", "shape")
        for name, formula in FORMULAS.items()
        if (sizes := _unfit(formula))
    ),
)
"""Recipes of which there is no model that runs."""

SPARED = (
    Rule(
        {"dtype": ("bfloat16",), "tool": _ONNXRUNTIME},
        "onnxruntime loads no Round of bfloat16",
        "bfloat16|Could not find an implementation",
    ),
    Rule(
        {"exporter": _DYNAMO_PLAIN, "formula": _SHIFTED, "tool": _ONNXRUNTIME},
        "the exporter mixes the types of BitShift, which onnxruntime refuses",
        "Type Error",
    ),
    Rule(
        {"dtype": ("bfloat16",), "shape": ("small",), "tool": ("onnxscript",)},
        "onnxscript folds the mean of small weights in bfloat16, which is wrong by factors",
        "dense|of max",
    ),
)
"""Models that a tool cannot read, or gets wrong."""


@dataclass(frozen=True)
class Recipe:
    """One choice for each factor.

    Attributes:
        formula: One of ``FORMULAS``.
        exporter: One of ``EXPORTERS``.
        dtype: In which the layers compute.
        norm: In front of each quantizer.
        bias: Whether the layers have one.
        shape: One of ``SHAPES``.
        weights: How the latent weights are distributed.
        rank: Of the input.
        dynamic: Whether all dimensions but the last are free.
    """

    formula: str
    exporter: str
    dtype: str
    norm: str
    bias: bool
    shape: str
    weights: str
    rank: int
    dynamic: bool

    def __str__(self) -> str:
        flags = {"bias": self.bias, "dynamic": self.dynamic}
        words = (str(v) for v in astuple(self) if not isinstance(v, bool))
        return "-".join([*words, *(name for name, on in flags.items() if on)])


RECIPES = [Recipe(**case) for case in covering_array(FACTORS, IMPOSSIBLE)]
_REAL = Recipe(
    formula="Faq",
    exporter="dynamo18",
    dtype="float32",
    norm="rms",
    bias=False,
    shape="real",
    weights="heavy",
    rank=3,
    dynamic=True,
)
REAL = [_REAL, replace(_REAL, formula="HfPacked", exporter="dynamo23", dtype="float16", norm="none")]
"""The largest layers of BitNet-b1.58-2B-4T."""


def tools(recipe: Recipe) -> dict[str, Tool]:
    """The optimisers that can take the recipe's model."""
    case = asdict(recipe)
    return {
        name: tool
        for name, tool in OPTIMISERS.items()
        if not any(rule.forbids({**case, "tool": name}) for rule in SPARED)
    }


class Network(nn.Module):
    """Two layers of one formula that read one tensor, as gate and up do, and a dense one."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.dtype = DTYPES[recipe.dtype]
        self.gate, self.up = (_layer(recipe, seed).to(self.dtype) for seed in (0, 1))
        self.head = nn.Linear(SHAPES[recipe.shape][1], HEAD)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = x.to(self.dtype)
        return self.gate(h).float(), self.up(h).float(), self.head(x)


def _layer(recipe: Recipe, seed: int) -> nn.Module:
    formula = FORMULAS[recipe.formula]
    n, k = SHAPES[recipe.shape]
    group = {0: n * k, -1: k}.get(formula.group, formula.group)
    latent = weights.latent(recipe.weights, (n, k), seed, group=group)
    rng = np.random.default_rng(seed + 2)
    bias = torch.tensor(rng.standard_normal(n), dtype=torch.float32) if recipe.bias else None
    layer = formula(torch.from_numpy(latent), bias, NORMS[recipe.norm])
    gains = [p for p in layer.norm.parameters() if p.ndim]
    with torch.no_grad():
        for gain in gains:
            gain.copy_(torch.from_numpy(rng.uniform(0.5, 2, k)))
    return layer


def network(recipe: Recipe) -> Network:
    """The model of a recipe; the same in every run."""
    torch.manual_seed(0)
    return Network(recipe).eval()


def tokens(recipe: Recipe, net: Network) -> Tensor:
    """Inputs [batch, tokens, k] or [tokens, k] of unlike sizes.

    No activation that is rounded is so near to a boundary that a unit in the last place, of a norm for
    instance, decides its code: every correct implementation gives the same numbers.
    """
    shape = {2: (5,), 3: (2, 3)}[recipe.rank]
    k = SHAPES[recipe.shape][1]
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        sizes = np.exp(rng.uniform(-2, 2, (*shape, 1)))
        x = torch.tensor(rng.standard_normal((*shape, k)) * sizes, dtype=torch.float32)
        if recipe.dtype != "float32" or _clearance(net, x) > _LAST_PLACES:
            return x
    raise AssertionError(f"{recipe}: no tokens found")


_LAST_PLACES = 4e-7  # of what is rounded


def _clearance(net: Network, x: Tensor) -> float:
    """The least distance of a rounded activation from a boundary, relative to the activation."""
    with _Rounded(x.numel()) as rounded:
        evaluate(net, x)
    return rounded.clearance


class _Rounded(TorchFunctionMode):
    """Watches the tensors of one size that are rounded."""

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel = numel
        self.clearance = math.inf

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in {torch.round, torch.Tensor.round} and args[0].numel() == self.numel:
            value = args[0].abs()
            distance = (value % 1 - 0.5).abs() / value.clamp(min=0.5)
            self.clearance = min(self.clearance, float(distance.min()))
        return func(*args, **(kwargs or {}))


def evaluate(net: Network, x: Tensor) -> Arrays:
    """What PyTorch computes, eagerly."""
    with torch.no_grad():
        return [y.numpy() for y in net(x)]


def worst(got: Arrays, want: Arrays) -> float:
    """The largest of all tokens of max|got - want| / max|want|; infinity where one of them is not finite."""
    largest = 0.0
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape
        error = np.abs(g - w).max(axis=-1) / np.abs(w).max(axis=-1)
        largest = max(largest, float(np.nan_to_num(error, nan=np.inf).max()))
    return largest


def export(recipe: Recipe, net: Network, x: Tensor, path: Path) -> None:
    """Write the model as the recipe's exporter does."""
    dynamo, opset, optimise = EXPORTERS[recipe.exporter]
    free = range(recipe.rank - 1) if recipe.dynamic else ()
    names = {"input_names": ["x"], "output_names": ["gate", "up", "head"], "opset_version": opset}
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch's own, of tracing and of what it deprecates
        if dynamo:
            dims = {axis: torch.export.Dim(f"rows{axis}") for axis in free}
            shapes = (dims,) if dims else None
            torch.onnx.export(
                net, (x,), path, dynamo=True, optimize=optimise, dynamic_shapes=shapes, verbose=False, **names
            )
        else:
            axes = {name: list(free) for name in ("x", *names["output_names"])} if free else None
            torch.onnx.export(
                net, (x,), path, dynamo=False, do_constant_folding=optimise, dynamic_axes=axes, **names
            )
