"""A wrong rewrite is caught before it is made, and the layer stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import ml_dtypes
import models
import numpy as np
import onnx_ir as ir
import pytest

from bitcc import passes
from bitcc.facts import KEPT, PACKED
from bitcc.formats import PackedMatrix
from bitcc.ops import ActScale
from bitcc.passes import pack_bit_linear
from bitcc.passes.detect import detect
from bitcc.passes.layer import Layer

if TYPE_CHECKING:
    import onnx

    from bitcc.facts import LayerFacts


Wrong: TypeAlias = Callable[[Layer], Layer]


def with_op(**attributes: Any) -> Wrong:
    return lambda layer: replace(layer, op=replace(layer.op, **attributes))


def with_codes(change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Wrong:
    def wrong(layer: Layer) -> Layer:
        codes = layer.ternary.codes
        changed = PackedMatrix(codes.fmt, codes.shape, codes.fmt.pack(change(codes.read())))
        return replace(layer, ternary=replace(layer.ternary, codes=changed))

    return wrong


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


FLOAT_WRONG: Mapping[str, Wrong] = {
    **{name: WRONG[name] for name in ("scale", "scale that is NaN", "bias", "no bias")},
    **{name: WRONG[name] for name in ("negated codes", "reversed rows", "one code")},
    "scale of unlike rows": lambda layer: replace(
        layer, w_scale=layer.w_scale * np.linspace(1, 2, models.N, dtype=np.float32)
    ),
    "scales of the wrong rows": lambda layer: replace(layer, w_scale=np.roll(layer.w_scale, 1, axis=1)),
}
GROUPED_WRONG: Mapping[str, Wrong] = {
    **FLOAT_WRONG,
    "scales of the wrong groups": lambda layer: replace(layer, w_scale=layer.w_scale[::-1].copy()),
    "the mean of the scales": lambda layer: replace(layer, w_scale=layer.w_scale * 0 + layer.w_scale.mean()),
    "group size": with_op(group_size=128),
}


def facts_of(
    monkeypatch: pytest.MonkeyPatch,
    wrong: Wrong,
    spelling: str = "dynamo_folded_bias",
    *,
    model: onnx.ModelProto | None = None,
    **options: Any,
) -> tuple[LayerFacts, bool]:
    """The facts of the layer when detection goes wrong, and whether the model was rewritten."""

    def wrongly(*arguments: Any, **second: Any) -> Any:
        found = detect(*arguments, **second)
        if not isinstance(found, Layer):
            return found
        return replace(found, w_scale=found.w_scale * 2) if second else wrong(found)

    monkeypatch.setattr(pack_bit_linear, "detect", wrongly)
    if model is None:
        model = models.build(spelling, rows=models.SPELLINGS[spelling].rows[0])
    graph = ir.from_proto(model)
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


def test_a_layer_whose_codes_are_not_proven_is_packed_with_float_activations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrongly(*arguments: Any, **second: Any) -> Any:
        found = detect(*arguments, **second)
        return WRONG["qmax"](found) if isinstance(found, Layer) and not second else found

    monkeypatch.setattr(pack_bit_linear, "detect", wrongly)
    packed, (layer, _) = models.pack(models.build("dynamo"))
    assert (layer.status, layer.activation) == (PACKED, "float")
    assert layer.reason.startswith("activations stay float: packed, it differs from the original by")
    x = models.tokens(2, 3)
    (got,), (want,) = models.run(packed, x), models.run(models.build("dynamo"), x)
    assert models.largest_difference(got, want) < 1e-5


@pytest.mark.parametrize("name", ["qmax", "scale", "negated codes"])
@pytest.mark.parametrize("spelling", ["codes_after", "gemm_bias", "quotient", "divide_row_scale"])
def test_it_is_not_made_in_other_spellings_either(
    monkeypatch: pytest.MonkeyPatch, spelling: str, name: str
) -> None:
    layer, modified = facts_of(monkeypatch, WRONG[name], spelling)
    assert (layer.status, modified) == (KEPT, False)


def with_groups() -> onnx.ModelProto:
    """A layer with float activations and one scale for each 64 columns."""
    scales = np.random.default_rng(0).uniform(0.5, 2, (models.N, 4, 1)).astype(np.float32)
    weight = models.latent(shape=(models.N, 256))
    values = {"fc.group_scale": scales}
    return models.build("weight_only/groups", weight=weight, values=values, replace={"$group": "64"})


FLOAT: Mapping[str, tuple[Callable[[], onnx.ModelProto], Mapping[str, Wrong]]] = {
    "dense": (lambda: models.build("weight_only/dense"), FLOAT_WRONG),
    "rows": (lambda: models.build("weight_only/int8_rows"), FLOAT_WRONG),
    "gemm": (lambda: models.build("weight_only/gemm", rows="tokens"), FLOAT_WRONG),
    "half": (lambda: models.build("weight_only/half", half="bfloat16"), FLOAT_WRONG),
    "groups": (with_groups, GROUPED_WRONG),
}
NOT_WRONG = {  # where the layer has one scale, or no bias
    ("dense", "scales of the wrong rows"),
    ("gemm", "scales of the wrong rows"),
    ("half", "scales of the wrong rows"),
    ("rows", "bias"),
    ("rows", "no bias"),
}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [(n, w) for n, (_, all_wrong) in FLOAT.items() for w in all_wrong if (n, w) not in NOT_WRONG],
)
def test_a_wrong_rewrite_of_float_activations_is_not_made(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: str
) -> None:
    make, all_wrong = FLOAT[name]
    layer, modified = facts_of(monkeypatch, all_wrong[wrong], model=make())
    assert (layer.status, modified) == (KEPT, False)
    assert "packed, it" in layer.reason


@pytest.mark.parametrize("name", FLOAT)
def test_the_right_rewrite_of_float_activations_is_made(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    layer, modified = facts_of(monkeypatch, lambda found: found, model=FLOAT[name][0]())
    assert (layer.status, layer.activation, modified) == (PACKED, "float", True)


@pytest.mark.parametrize("wrong", ["scale", "bias", "negated codes", "reversed rows", "one code"])
def test_noise_that_is_dropped_hides_no_wrong_code(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    codes, scale = models.quantized(models.latent())
    dense = codes.T * np.float32(scale)
    dense[::9] *= np.float32(1.01)
    dense = dense.astype(ml_dtypes.bfloat16).astype(np.float32)
    model = models.build("weight_only/dense", values={"fc.dense": dense})
    layer, modified = facts_of(monkeypatch, FLOAT_WRONG[wrong], model=model)
    assert (layer.status, layer.scheme, modified) == (KEPT, "ternary", False)


@pytest.mark.parametrize("wrong", ["negated codes", "reversed rows", "one code", "scale"])
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_a_wrong_rewrite_in_half_precision_is_not_made(
    monkeypatch: pytest.MonkeyPatch, half: str, wrong: str
) -> None:
    model = models.build("half_bias", half=half)
    layer, modified = facts_of(monkeypatch, WRONG[wrong], model=model)
    assert (layer.status, modified) == (KEPT, False)


@pytest.mark.parametrize("spelling", ["int8_rows", "qcdq_rows"])
def test_codes_of_four_bits_that_the_runtime_takes_from_no_one_are_proven(spelling: str) -> None:
    codes = models.arrays()["fc.int8"].astype(ml_dtypes.int4)
    model = models.build(f"weight_only/{spelling}", opset=21, values={"fc.int8": codes})
    facts = models.pack(model)[1][0]
    assert facts.status == PACKED
    assert facts.max_error is not None
    assert facts.max_error < 2e-6
    models.assert_same(model)


@pytest.mark.parametrize("spelling", ["dynamo", "codes_after", "hf_offline_rms_bias"])
def test_an_int8_layer_with_weights_in_bfloat16_is_proven(spelling: str) -> None:
    """The graph widens them before it computes."""
    name = "fc.codes" if "offline" in spelling else "fc.weight"
    content = models.text(spelling)
    first = content.index("{", content.index("main_graph"))
    first = content.index("\n{", first) + 2
    content = content.replace(f'"{name}"', "wide")
    content = content[:first] + f'\n  wide = Cast <to = 1> ("{name}")' + content[first:]
    known = models.arrays()
    known[name] = known[name].astype(ml_dtypes.bfloat16)
    model = models.parse(content.replace("$opset", "18").replace("$rows", "2, 3"), known)
    facts = models.pack(model)[1][0]
    assert (facts.status, facts.activation) == (PACKED, "int8_token")
    assert facts.max_error is not None
    models.assert_same(model)


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
        seen.append(x.reshape(-1, x.shape[-1]))
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


def test_a_layer_that_the_runtime_cannot_run_is_not_proven_and_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("not implemented")

    monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
    layer, _ = facts_of(monkeypatch, lambda found: found)
    assert (layer.status, layer.max_error) == (KEPT, None)
    assert layer.reason == (
        "onnxruntime cannot run its original nodes, so that nothing is proven: not implemented"
    )


@pytest.mark.parametrize("wrong", [None, "negated codes", "reversed rows"])
def test_a_layer_that_is_in_half_precision_only_inside_is_proven_as_such(
    monkeypatch: pytest.MonkeyPatch, wrong: str | None
) -> None:
    """The offline optimiser of onnxruntime leaves some nodes of a half-precision layer in float32."""
    inside = "half = Cast <to = 10> (mul_41)\n  rounded = Round (half)\n  round_1 = Cast <to = 1> (rounded)"
    model = models.build("dynamo", replace={"round_1 = Round (mul_41)": inside})
    layer, _ = facts_of(monkeypatch, WRONG[wrong] if wrong else lambda found: found, model=model)
    assert layer.status == (KEPT if wrong else PACKED)
    assert layer.numerics == ("" if wrong else "float32")
