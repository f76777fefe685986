"""What the passes must read out of each file in ``spellings`` and ``spellings/weight_only``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.weights import K, N

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]

RECIPROCAL, DIVIDE, QUOTIENT, PRODUCT = range(4)
TOKEN, TENSOR = range(2)
FLOAT = 1
RMS = 1
_EPS = float(np.float32(1e-5))


@dataclass(frozen=True)
class Spelling:
    """One way to write a BitLinear.

    Attributes:
        node: Name of its matrix product; the head's follows from it.
        opsets: Opsets in which exporters write it.
        rows: Leading dimensions that it can have.
        op: Attributes of the packed node that are not those of the FAQ.
        bias: Name of the array that is its bias, and of the one that scales it, if any.
        row_scale: Name of the array with one scale for each row.
        gain: Name of the array with the gain of its norm.
        half: Whether it computes in half precision.
        op_type: Of the product.
    """

    node: str = "node_linear"
    opsets: tuple[int, ...] = (18, 20, 23)
    rows: tuple[str, ...] = ("batch, tokens", "2, 3", "tokens")
    op: Mapping[str, float] = field(default_factory=dict)
    bias: tuple[str, ...] = ()
    row_scale: str | None = None
    gain: str | None = None
    half: bool = False
    op_type: str = "MatMul"

    @property
    def head(self) -> str:
        """Name of the dense product behind the layer."""
        return self.node.replace("linear", "head").replace("/fc/", "/head/")

    def attributes(self) -> dict[str, Any]:
        """Every attribute of the packed node."""
        common = {
            "K": K,
            "N": N,
            "act_scale": RECIPROCAL,
            "act_type": FLOAT,
            "act_floor": _EPS,
            "act_eps": 0.0,
            "qmax": 127.0,
            "act_min": -128.0,
            "act_max": 127.0,
            "bias_before_scale": 0,
            "weight_format": "t2",
            "layout_version": 1,
            "act_scope": TOKEN,
            "norm": 0,
            "norm_eps": 0.0,
        }
        return {**common, **self.op}

    def expected_bias(self, arrays: Mapping[str, Array]) -> Array:
        """[1] zero or [N], in float64."""
        bias = np.zeros(1) if not self.bias else np.ones(1)
        for name in self.bias:
            bias = bias * arrays[name].astype(np.float64)
        return bias


@dataclass(frozen=True)
class WeightOnly:
    """One way to write a layer with ternary weights and float activations.

    Attributes:
        opsets: Opsets in which it can be written.
        rows: Leading dimensions that it can have.
        codes: Name of the array with its codes [n, k].
        scale: Name of the array with its scale, for all rows or for each.
        gain: Factor of that scale.
        bias: Factor of ``fc.bias``.
        half: Whether it computes in half precision.
        op_type: Of the product.
        reason: Why its activations are float.
    """

    opsets: tuple[int, ...] = (15, 18, 23)
    rows: tuple[str, ...] = ("batch, tokens", "2, 3", "tokens")
    codes: str = "fc.int8"
    scale: str = "fc.scale"
    gain: float = 1.0
    bias: float = 0.0
    half: bool = False
    op_type: str = "MatMul"
    reason: str = "there is no activation quantizer in front of it"


_TORCHSCRIPT = ("/fc/MatMul", (15, 17))
_TWO_D = ("tokens", "5")

SPELLINGS = {
    "dynamo": Spelling(),
    "dynamo_folded_bias": Spelling(bias=("fc.bias",)),
    "dynamo_unoptimized": Spelling(),
    "torchscript": Spelling(*_TORCHSCRIPT),
    "torchscript_folded_bias": Spelling(*_TORCHSCRIPT, bias=("fc.bias",)),
    "ort_basic": Spelling(opsets=(18,)),
    "ort_extended": Spelling(opsets=(18,), op_type="FusedMatMul"),
    "onnxslim": Spelling(),
    "gemm": Spelling(rows=_TWO_D, op_type="Gemm"),
    "gemm_bias": Spelling(rows=_TWO_D, op_type="Gemm", bias=("fc.bias",)),
    "per_tensor": Spelling(op={"act_scope": TENSOR, "qmax": 128.0}),
    "per_tensor_item": Spelling(*_TORCHSCRIPT, op={"act_scope": TENSOR, "act_floor": 0.0, "act_eps": _EPS}),
    "hf_online": Spelling(),
    "hf_offline_rms_bias": Spelling(
        op={"norm": RMS, "norm_eps": float(np.float32(1e-6))},
        bias=("fc.bias", "fc.weight_scale"),
        gain="norm.weight",
    ),
    "hf_offline_ort": Spelling(opsets=(18,), op_type="FusedMatMul"),
    "hf_packed": Spelling(),
    "codes_after": Spelling(op={"act_min": -127.0}),
    "codes_after_bias_norm": Spelling(
        "/fc/MatMul", (17,), op={"qmax": 128.0, "bias_before_scale": 1}, bias=("fc.bias",)
    ),
    "quotient": Spelling(op={"act_scale": QUOTIENT}),
    "product_first": Spelling(op={"act_scale": PRODUCT, "act_min": -127.0}),
    "bitnet_v1": Spelling(
        op={"act_scale": PRODUCT, "act_scope": TENSOR, "act_floor": 0.0, "act_min": -127.0},
        bias=("fc.bias",),
    ),
    "divide_row_scale": Spelling(
        op={
            "act_scale": DIVIDE,
            "act_floor": 0.0,
            "act_eps": float(np.float32(1e-6)),
            "act_min": -127.0,
        },
        bias=("fc.bias",),
        row_scale="fc.row_scale",
    ),
    "qcdq": Spelling(opsets=(20, 23)),
    "half_bias": Spelling(half=True, bias=("half.bias",)),
    "half_hf_offline": Spelling(half=True),
}

assert set(SPELLINGS) == {file.stem for file in (Path(__file__).parent / "spellings").glob("*.onnxtxt")}

LEADING = {"batch, tokens": (2, 3), "2, 3": (2, 3), "tokens": (5,), "5": (5,)}
"""What a test feeds for each spelling of the leading dimensions."""
NO_QUANTIZER = WeightOnly.reason
WEIGHT_ONLY = {
    "dense": WeightOnly(bias=1),
    "online": WeightOnly(opsets=(18, 23)),
    "online_rows": WeightOnly(opsets=(18, 23), codes="fc.row_codes", scale="fc.row_mean"),
    "int8_rows": WeightOnly(scale="fc.row_scale"),
    "qcdq": WeightOnly(),
    "qcdq_rows": WeightOnly(scale="fc.row_scale"),
    "codes_times_scale": WeightOnly(bias=1),
    "codes_divided_by_rows": WeightOnly(scale="fc.inverse_row_scale"),
    "gemm": WeightOnly(rows=_TWO_D, scale="fc.one", gain=0.5, bias=2, op_type="Gemm"),
    "fused": WeightOnly(scale="fc.one", gain=0.25, op_type="FusedMatMul"),
    "binary_sign": WeightOnly(codes="fc.centered_signs"),
    "binary_where": WeightOnly(codes="fc.signs", scale="fc.row_scale"),
    "binary_cast": WeightOnly(codes="fc.signs"),
    "sign_activations": WeightOnly(reason="its activations are signs, made by `sign`, and no int8 codes"),
    "half": WeightOnly(half=True, bias=1),
    "half_stored": WeightOnly(),
}
GROUPED = ("groups", "qcdq_groups")

_FILES = {file.stem for file in (Path(__file__).parent / "spellings" / "weight_only").glob("*.onnxtxt")}
assert {*WEIGHT_ONLY, *GROUPED} == _FILES
