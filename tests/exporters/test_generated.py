"""Every formula, exporter and size: all layers are found, and compute what PyTorch computes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnxruntime as ort
import pytest

import bitcc

torch = pytest.importorskip("torch", reason="torch is not installed: `make test-torch` installs and tests")

from models import torch_models  # noqa: E402 - it needs torch
from models.torch_layers import FORMULAS  # noqa: E402
from models.torch_models import IMPOSSIBLE, REAL, RECIPES, SPARED, Recipe  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from models.covering import Rule

    from bitcc.bundle import Bundle

LAYERS = 2
BOUNDS = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 8e-2}
"""Of max|y| of each token, from PyTorch's eager result. In half precision it is that which rounds: codes,
scales, and sums of codes with a bias; the compiled layers compute in float32."""
AFTER_TOOLS = {**BOUNDS, "float32": 3e-5}  # they fold the weight scale, and sum its mean in float32
REAL_AFTER_TOOLS = {**AFTER_TOOLS, "float32": 5e-3}  # as onnxruntime sums 18 million weights


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def run(built: Bundle, x: torch.Tensor, *, library: bool) -> torch_models.Arrays:
    """The outputs of a bundle."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if library:
        session = bitcc.session(built, options)
    else:
        session = ort.InferenceSession(built.model, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x.numpy()}))


def problems(
    recipe: Recipe, source: Path, bound: float, x: torch.Tensor, want: torch_models.Arrays
) -> list[str]:
    """What is wrong with a file once it is compiled."""
    built = bitcc.compile(source, source.parent / "bundle", verify=False, force=True)
    kept = [f"kept {layer.name}: {layer.reason}" for layer in built.kept if layer.N != torch_models.HEAD]
    if kept or len(built.packed) != LAYERS:
        return kept or [f"{len(built.packed)} layers"]
    if FORMULAS[recipe.formula].int8 and any(layer.activation == "float" for layer in built.packed):
        return [layer.reason for layer in built.packed]
    errors = {library: torch_models.worst(run(built, x, library=library), want) for library in (True, False)}
    return [f"library {lib}: {error:.1e} of max|y|" for lib, error in errors.items() if not error <= bound]


@pytest.mark.parametrize("recipe", [*RECIPES, *REAL], ids=str)
def test_every_layer_is_found_and_computes_what_pytorch_does(recipe: Recipe, tmp_path: Path) -> None:
    net = torch_models.network(recipe)
    x = torch_models.tokens(recipe, net)
    want = torch_models.evaluate(net, x)
    source = tmp_path / "model.onnx"
    torch_models.export(recipe, net, x, source)
    after_tools = (REAL_AFTER_TOOLS if recipe in REAL else AFTER_TOOLS)[recipe.dtype]
    found = {"as exported": problems(recipe, source, BOUNDS[recipe.dtype], x, want)}
    for name, optimise in torch_models.tools(recipe).items():
        target = tmp_path / f"{name}.onnx"
        optimise(source, target)
        found[name] = problems(recipe, target, after_tools, x, want)
    assert not any(found.values()), {name: words for name, words in found.items() if words}


BASE = replace(REAL[0], shape="down", norm="none")


def choices(rule: Rule) -> dict[str, Any]:
    """The first combination that a rule forbids."""
    return {factor: levels[0] for factor, levels in rule.when.items()}


@pytest.mark.parametrize("rule", IMPOSSIBLE, ids=lambda rule: rule.reason)
def test_what_is_left_out_is_impossible(rule: Rule, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=rule.error):
        _try(replace(BASE, **choices(rule)), None, tmp_path)


@pytest.mark.parametrize("rule", SPARED, ids=lambda rule: rule.reason)
def test_what_a_tool_is_spared_it_cannot_take(rule: Rule, tmp_path: Path) -> None:
    choice = choices(rule)
    tool = torch_models.OPTIMISERS[choice.pop("tool")]
    exporter = {"exporter": "torchscript17-plain"} | choice
    with pytest.raises(Exception, match=rule.error):
        _try(replace(BASE, **exporter), tool, tmp_path)


def _try(recipe: Recipe, tool: torch_models.Tool | None, folder: Path) -> None:
    """Raise what goes wrong, in whatever step."""
    net = torch_models.network(recipe)
    x = torch_models.tokens(recipe, net)
    source, target = folder / "model.onnx", folder / "tool.onnx"
    torch_models.export(recipe, net, x, source)
    if tool is not None:
        tool(source, target)
    path = source if tool is None else target
    found = problems(recipe, path, BOUNDS[recipe.dtype], x, torch_models.evaluate(net, x))
    assert not found, "; ".join(found)
