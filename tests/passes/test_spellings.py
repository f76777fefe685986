"""Every spelling of BitLinear: it is found, its numbers are exact, and the packed model computes the same."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import models
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bitcc import formats
from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    from bitcc.facts import LayerFacts


class Case(NamedTuple):
    """One file of ``models/spellings`` with its variables."""

    spelling: str
    rows: str
    opset: int
    latent: str = "gaussian"
    half: str = "float16"

    @property
    def expected(self) -> models.Spelling:
        """What must be found."""
        return models.SPELLINGS[self.spelling]

    def original(self) -> onnx.ModelProto:
        """The model to compile."""
        weight = models.latent(self.latent)
        return models.build(self.spelling, rows=self.rows, opset=self.opset, weight=weight, half=self.half)


class Packed(NamedTuple):
    """What the passes made of a case."""

    model: onnx.ModelProto
    facts: tuple[LayerFacts, ...]

    def node(self) -> onnx.NodeProto:
        """The only BitLinear."""
        (node,) = (n for n in self.model.graph.node if n.domain == "bitcc")
        return node

    def inputs(self) -> list[np.ndarray[Any, Any]]:
        """Its weight, scale and bias."""
        arrays = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}
        return [arrays[name] for name in self.node().input[1:]]


def _cases() -> list[Case]:
    cases: list[Case] = []
    for name, spelling in models.SPELLINGS.items():
        first = Case(name, spelling.rows[0], spelling.opsets[0])
        cases += [first._replace(rows=rows) for rows in spelling.rows]
        cases += [first._replace(opset=opset) for opset in spelling.opsets[1:]]
        cases.append(first._replace(half="bfloat16") if spelling.half else first._replace(latent="heavy"))
    return cases


CASES = _cases()
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
every_float32_case = pytest.mark.parametrize(
    "case", [c for c in CASES if not c.expected.half], ids=lambda case: "-".join(map(str, case[:-1]))
)


@functools.cache
def packed(case: Case) -> Packed:
    return Packed(*models.pack(case.original()))


@every_case
def test_exactly_the_bit_linear_is_packed(case: Case) -> None:
    layer, head = packed(case).facts
    assert (layer.name, layer.status, layer.reason) == (case.expected.node, PACKED, "")
    assert (head.name, head.status) == (case.expected.head, KEPT)
    assert "the weights are dense" in head.reason


@every_case
def test_the_facts_describe_the_layer(case: Case) -> None:
    layer = packed(case).facts[0]
    assert (layer.op, layer.N, layer.K) == (case.expected.op_type, models.N, models.K)
    per_tensor = case.expected.attributes()["act_scope"] == models.TENSOR
    assert (layer.scheme, layer.activation) == ("ternary", "int8_tensor" if per_tensor else "int8_token")
    assert layer.scope == "tensor"
    assert layer.norm == ("rms" if case.expected.gain else "")
    assert layer.numerics == ("float32" if case.expected.half else "exact")
    assert layer.max_error is not None
    assert layer.max_error < 1e-6


@every_case
def test_the_attributes_are_those_of_the_quantizer(case: Case) -> None:
    found = models.attributes(packed(case).node())
    want = case.expected.attributes()
    if case.spelling == "half_bias":
        want["act_floor"] = float(models.arrays(half=case.half)["half.eps"])
    assert found == want


@every_case
def test_the_weights_unpack_to_the_exact_codes(case: Case) -> None:
    weight = packed(case).inputs()[0]
    codes, _ = models.quantized(models.latent(case.latent))
    np.testing.assert_array_equal(formats.FORMATS["t2"].unpack(weight, models.N, models.K), codes)


@every_case
def test_the_scale_and_the_bias_are_those_of_the_layer(case: Case) -> None:
    _, scale, bias, gain = packed(case).inputs()
    arrays = models.arrays(models.latent(case.latent), case.half)
    np.testing.assert_array_equal(gain, arrays[case.expected.gain] if case.expected.gain else [1])
    want = np.array([models.quantized(models.latent(case.latent))[1]])
    if case.expected.row_scale:
        want = arrays[case.expected.row_scale]
    tolerance = {"float16": 3e-3, "bfloat16": 2e-2}[case.half] if case.expected.half else 1e-6
    assert scale.dtype == bias.dtype == np.float32
    np.testing.assert_allclose(scale, want, rtol=tolerance)
    np.testing.assert_allclose(bias, case.expected.expected_bias(arrays), rtol=1e-6)


@every_float32_case
def test_the_packed_model_computes_what_the_original_computes(case: Case) -> None:
    x = models.tokens(*models.LEADING[case.rows])
    (got,) = models.run(packed(case).model, x)
    (want,) = models.run(case.original(), x)
    assert models.largest_difference(got, want) < 1e-5


@every_case
def test_the_quantizers_and_the_dense_weight_are_gone(case: Case) -> None:
    model = packed(case).model
    left = {node.op_type for node in model.graph.node}
    assert not left & {
        "Abs",
        "ReduceMax",
        "Round",
        "Clip",
        "Max",
        "Min",
        "CastLike",
        "Transpose",
        "ScatterND",
    }
    names = {tensor.name for tensor in model.graph.initializer}
    assert not [name for name in names if name.startswith("fc.")]
    assert names == {i for node in model.graph.node for i in node.input} & names


@every_case
def test_the_packed_model_is_valid_onnx(case: Case) -> None:
    onnx.checker.check_model(packed(case).model)
