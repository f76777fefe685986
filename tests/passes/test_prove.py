"""A wrong rewrite is caught before it is made, and the layer stays."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx_ir as ir
import pytest

from bitcc import passes
from bitcc.facts import KEPT, PACKED
from bitcc.ops import ActScale
from bitcc.passes import pack_bit_linear
from bitcc.passes.detect import Layer, detect
from bitcc.passes.ternary import Ternary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bitcc.facts import LayerFacts

    Wrong = Callable[[Layer], Layer]


def with_op(**attributes: Any) -> Wrong:
    return lambda layer: replace(layer, op=replace(layer.op, **attributes))


def with_codes(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Wrong:
    return lambda layer: replace(layer, ternary=Ternary(change(layer.ternary.codes), layer.ternary.scale))


def one_code_less(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    changed = codes.copy()
    changed[tuple(np.argwhere(changed)[0])] = 0
    return changed


WRONG: Mapping[str, Wrong] = {
    "scale": lambda layer: replace(layer, w_scale=layer.w_scale * np.float32(1.0001)),
    "scale that is NaN": lambda layer: replace(layer, w_scale=layer.w_scale * np.float32(np.nan)),
    "scale of unlike rows": lambda layer: replace(
        layer, w_scale=np.linspace(1, 2, models.N, dtype=np.float32)
    ),
    "bias": lambda layer: replace(layer, bias=-layer.bias),
    "no bias": lambda layer: replace(layer, bias=np.zeros(1, np.float32)),
    "bias before the scale": with_op(bias_before_scale=1),
    "qmax": with_op(qmax=126.0),
    "floor": with_op(act_floor=1e-3),
    "added epsilon": with_op(act_eps=1e-3),
    "lower bound": with_op(act_min=-100.0),
    "upper bound": with_op(act_max=100.0),
    "negated codes": with_codes(np.negative),
    "reversed rows": with_codes(lambda codes: codes[::-1].copy()),
    "one code": with_codes(one_code_less),
}


def facts_of(
    monkeypatch: pytest.MonkeyPatch, wrong: Wrong, spelling: str = "dynamo_folded_bias", **options: Any
) -> tuple[LayerFacts, bool]:
    """The facts of the layer when detection goes wrong, and whether the model was rewritten."""

    def wrongly(*arguments: Any) -> Any:
        found = detect(*arguments)
        return wrong(found) if isinstance(found, Layer) else found

    monkeypatch.setattr(pack_bit_linear, "detect", wrongly)
    rows = models.SPELLINGS[spelling].rows[0]
    graph = ir.from_proto(models.build(spelling, rows=rows))
    result = passes.PackBitLinearPass(**options)(graph)
    return graph.meta[passes.FACTS][0], result.modified


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rewrite_is_not_made(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    spelling = "dynamo_folded_bias" if "bias" in name else "dynamo"
    layer, modified = facts_of(monkeypatch, WRONG[name], spelling)
    assert layer.status == KEPT
    assert not modified
    assert "packed, it differs from the original by" in layer.reason
    assert layer.reason.endswith("of max|y|, over 1e-05")


@pytest.mark.parametrize("name", ["qmax", "scale", "negated codes"])
@pytest.mark.parametrize("spelling", ["codes_after", "gemm_bias", "quotient", "divide_row_scale"])
def test_it_is_not_made_in_other_spellings_either(
    monkeypatch: pytest.MonkeyPatch, spelling: str, name: str
) -> None:
    layer, modified = facts_of(monkeypatch, WRONG[name], spelling)
    assert (layer.status, modified) == (KEPT, False)


@pytest.mark.parametrize("form", [ActScale.DIVIDE, ActScale.QUOTIENT])
def test_a_scale_that_rounds_in_another_way_moves_no_more_than_a_code(
    monkeypatch: pytest.MonkeyPatch, form: ActScale
) -> None:
    """Both forms give one scale within an ulp, so that only an input on a boundary tells them apart."""
    layer, _ = facts_of(monkeypatch, with_op(act_scale=form))
    assert (layer.status == PACKED) is (layer.max_error is not None and layer.max_error < 1e-5)


def test_without_proof_the_error_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, modified = facts_of(monkeypatch, lambda found: found, prove=False)
    assert (layer.status, layer.max_error, modified) == (PACKED, None, True)


@pytest.mark.parametrize("rows", ["batch, tokens", "2, 3", "1, 1", "1", "5", "7", "40"])
def test_every_kind_of_token_is_tried_whatever_the_shape(monkeypatch: pytest.MonkeyPatch, rows: str) -> None:
    """Rows of zeros and of exact halves find what ordinary tokens do not."""
    seen: list[np.ndarray[Any, Any]] = []
    reference = passes.prove.ops.reference

    def spy(x: np.ndarray[Any, Any], *arguments: Any) -> Any:
        seen.append(x.reshape(-1, models.K))
        return reference(x, *arguments)

    monkeypatch.setattr(passes.prove.ops, "reference", spy)
    _, facts = models.pack(models.build("dynamo", rows=rows))
    assert facts[0].status == PACKED
    tokens = np.concatenate(seen)
    largest = np.abs(tokens).max(axis=1)
    assert (largest == 0).any()
    assert (tokens[:, 1:] % 1 == 0.5).all(axis=1).any()
    assert (largest > 1e3).any()
    assert ((largest > 0) & (largest < 1e-5)).any()


def test_a_layer_that_the_runtime_cannot_run_is_packed_without_a_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("not implemented")

    monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
    layer, _ = facts_of(monkeypatch, lambda found: found)
    assert (layer.status, layer.max_error) == (PACKED, None)
