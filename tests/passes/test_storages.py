"""Ternary weights in every storage: small integers, MatMulNBits and the quantizers of QONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.facts import LayerFacts

    Array = NDArray[Any]

N, K, BLOCK = 64, 128, 32
CODES, SCALE = models.quantized(models.latent(shape=(N, K)))
RNG = np.random.default_rng(5)
GROUP_SCALES = RNG.uniform(0.5, 2, (N, K // BLOCK)).astype(np.float32)
QUANTIZER = models.quantizer() + "quantized = Div (codes, scale)\n"


def parse(body: str, known: dict[str, Array | onnx.TensorProto], opset: int = 21) -> onnx.ModelProto:
    """A model of tokens [tokens, K]; tensors of types that numpy lacks are given as such."""
    content = f"""
      <ir_version: 13, opset_import: ["" : {opset}, "com.microsoft" : 1, "qonnx.custom_op.general" : 1]>
      storage (float[tokens, {K}] x) => (float[tokens, {N}] y) {{ {body} }}
    """
    model = onnx.parser.parse_model(content)
    known = {**models.QUANTIZER_CONSTANTS, **known}
    used = dict.fromkeys(i for node in model.graph.node for i in node.input if i in known)
    for name in used:
        value = known[name]
        is_tensor = isinstance(value, onnx.TensorProto)
        model.graph.initializer.append(value if is_tensor else models.initializer(name, value))
    return model


def only(model: onnx.ModelProto) -> LayerFacts:
    (layer,) = models.pack(model)[1]
    return layer


def assert_computes(model: onnx.ModelProto, weight: Array) -> None:
    """The packed model gives what the exact weight [n, k] gives; ours may be the only one that runs."""
    packed, (layer,) = models.pack(model)
    assert layer.status == PACKED, layer
    x = models.tokens(3, k=K)
    (got,) = models.run(packed, x)
    want = (x.astype(np.float64) @ weight.astype(np.float64).T).astype(np.float32)
    assert models.largest_difference(got, want) < 1e-5


SCOPES: dict[str, tuple[Array, str, Array]] = {
    "tensor": (np.array(SCALE, np.float32), "axis = 1", np.full((N, K), SCALE)),
    "row": (GROUP_SCALES[:, 0], "axis = 0", np.repeat(GROUP_SCALES[:, :1], K, axis=1)),
    "group": (GROUP_SCALES, f"axis = 1, block_size = {BLOCK}", np.repeat(GROUP_SCALES, BLOCK, axis=1)),
}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("element", ["INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"])
def test_codes_in_small_integers_are_read(element: str, scope: str) -> None:
    scale, attributes, spread = SCOPES[scope]
    offset = int(element.startswith("U"))
    known = {
        "stored": tensor("stored", CODES + offset, element),
        "step": scale,
        "offset": tensor("offset", np.full(scale.shape, offset), element),
    }
    inputs = "stored, step, offset" if offset else "stored, step"
    body = f"w = DequantizeLinear <{attributes}> ({inputs}) t = Transpose (w) y = MatMul (x, t)"
    model = parse(body, known, opset=25 if "2" in element else 21)
    assert_computes(model, CODES * spread)
    assert only(model).scope == {"group": f"group:{BLOCK}"}.get(scope, scope)


def test_four_levels_of_two_bits_are_no_ternary_weight() -> None:
    known = {"stored": tensor("stored", RNG.integers(-2, 2, (N, K)), "INT2"), "step": np.float32(0.1)}
    layer = only(parse("w = DequantizeLinear (stored, step) y = Gemm <transB = 1> (x, w)", known, opset=25))
    assert (layer.status, layer.scheme) == (KEPT, "dense")


def tensor(name: str, array: Array, element: str) -> onnx.TensorProto:
    data_type = TensorProto.DataType.Value(element)
    return helper.make_tensor(name, data_type, array.shape, np.asarray(array).reshape(-1).tolist())


def blocks(levels: Array, bits: int) -> Array:
    """[N, K] levels from 0 -> uint8 [N, K / BLOCK, bytes], the first level in the lowest bits."""
    each = 8 // bits
    grouped = levels.astype(np.uint8).reshape(N, K // BLOCK, -1, each)
    shifts = np.arange(each, dtype=np.uint8) * np.uint8(bits)
    return np.bitwise_or.reduce(grouped << shifts, axis=-1)


def packed_row(levels: Array, bits: int) -> Array:
    """[N, n] -> uint8 [N, bytes]."""
    each = 8 // bits
    padded = np.zeros((N, -(-levels.shape[1] // each) * each), np.uint8)
    padded[:, : levels.shape[1]] = levels
    return np.bitwise_or.reduce(
        padded.reshape(N, -1, each) << (np.arange(each) * bits).astype(np.uint8), axis=-1
    )


def nbits(bits: int, zero_points: str, x: str = "x", more: str = "") -> onnx.ModelProto:
    middle = np.full((N, K // BLOCK), 2 ** (bits - 1))
    zeros: Array = middle
    inputs = f"{x}, stored, steps"
    known: dict[str, Any] = {"steps": GROUP_SCALES, "bias": np.ones(N, np.float32)}
    if zero_points == "packed":
        zeros = RNG.integers(1, 2**bits - 1, middle.shape)
        known["zeros"] = packed_row(zeros, bits)
    elif zero_points == "float":
        known["zeros"] = zeros.astype(np.float32)
    if zero_points != "none":
        inputs += ", zeros"
    known["stored"] = blocks(CODES + np.repeat(zeros, BLOCK, axis=1), bits)
    attributes = f"K = {K}, N = {N}, bits = {bits}, block_size = {BLOCK}{more}"
    front = QUANTIZER if x == "quantized" else ""
    return parse(f"{front} y = com.microsoft.MatMulNBits <{attributes}> ({inputs})", known)


SPREAD = CODES * np.repeat(GROUP_SCALES, BLOCK, axis=1)


@pytest.mark.parametrize("zero_points", ["none", "packed", "float"])
@pytest.mark.parametrize("bits", [2, 4])
def test_a_ternary_weight_of_matmul_nbits_is_read(bits: int, zero_points: str) -> None:
    model = nbits(bits, zero_points)
    assert_computes(model, SPREAD)
    packed = models.assert_same(nbits(bits, zero_points))
    assert models.op_types(packed) == ["TernaryLinear"]


def test_matmul_nbits_behind_a_quantizer_is_an_int8_layer() -> None:
    """One scale in all blocks is one for the tensor."""
    known = {"stored": blocks(CODES + 2, 2), "steps": np.full((N, K // BLOCK), SCALE, np.float32)}
    attributes = f"K = {K}, N = {N}, bits = 2, block_size = {BLOCK}"
    inputs = 'quantized, stored, steps, "", "", bias'
    body = QUANTIZER + f"y = com.microsoft.MatMulNBits <{attributes}> ({inputs})"
    bias = {"bias": RNG.standard_normal(N).astype(np.float32)}
    model = parse(body.replace('""', ""), {**known, **bias})
    assert models.op_types(models.assert_same(model)) == ["BitLinear"]
    assert only(model).bytes_before == known["stored"].nbytes + known["steps"].nbytes


def test_an_accuracy_level_lets_the_runtime_be_less_exact_than_the_layer() -> None:
    layer = only(nbits(4, "none", more=", accuracy_level = 4"))
    assert (layer.status, layer.numerics) == (PACKED, "float32")


def test_matmul_nbits_of_more_levels_is_kept() -> None:
    model = nbits(4, "none")
    (stored,) = (t for t in model.graph.initializer if t.name == "stored")
    stored.CopyFrom(models.initializer("stored", blocks(RNG.integers(0, 16, (N, K)), 4)))
    assert (only(model).status, only(model).N, only(model).K) == (KEPT, N, K)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("bits = 2", "bits = 3"), "are no weight of MatMulNBits"),
        ((f"N = {N}", "N = 63"), "its weight is uint8"),
        (("steps)", "steps, stored)"), "its zero points are uint8"),
        (("steps)", "steps, , order)"), "it reorders its columns"),
    ],
)
def test_a_matmul_nbits_that_is_not_what_the_op_defines_is_kept(change: tuple[str, str], reason: str) -> None:
    body = (
        f"y = com.microsoft.MatMulNBits <K = {K}, N = {N}, bits = 2, block_size = {BLOCK}> (x, stored, steps)"
    )
    known = {
        "stored": blocks(CODES + 2, 2),
        "steps": GROUP_SCALES,
        "order": np.arange(K, dtype=np.int32) // BLOCK,
    }
    layer = only(parse(body.replace(*change), known))
    assert layer.status == KEPT
    assert reason in layer.reason


PLANES = """
  a0 = BitwiseAnd (packed, m0) b0 = BitShift <direction = "RIGHT"> (a0, n0)
  a1 = BitwiseAnd (packed, m1) b1 = BitShift <direction = "RIGHT"> (a1, n1)
  a2 = BitwiseAnd (packed, m2) b2 = BitShift <direction = "RIGHT"> (a2, n2)
  a3 = BitwiseAnd (packed, m3) b3 = BitShift <direction = "RIGHT"> (a3, n3)
  planes = Concat <axis = 0> (b0, b1, b2, b3) levels = Cast <to = 1> (planes) w = Sub (levels, one)
  p = Gemm <transB = 1> (x, w) y = Mul (p, step)
"""


def planes(shift: Any, amounts: tuple[int, ...] = (0, 2, 4, 6)) -> onnx.ModelProto:
    """Four codes a byte, more than 8192 bytes, shifted by numbers of the type ``shift``."""
    codes = np.tile(CODES, (8, 1))
    parts = (codes + 1).astype(np.uint8).reshape(4, -1, K)
    packed = parts[0] | parts[1] << 2 | parts[2] << 4 | parts[3] << 6
    assert packed.nbytes > 8192
    known: dict[str, Any] = {
        "packed": packed.astype(np.uint8),
        "one": np.float32(1),
        "step": np.float32(SCALE),
    }
    known |= {f"m{i}": np.uint8(3 << 2 * i) for i in range(4)}
    known |= {f"n{i}": shift(amount) for i, amount in enumerate(amounts)}
    model = parse(PLANES, known)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(codes)
    return model


@pytest.mark.parametrize("shift", [np.uint8, np.int8, np.int64])
def test_codes_are_shifted_by_a_number_of_any_type(shift: Any) -> None:
    """Of the types the op takes only the first: the original does not load, and the packed model does."""
    assert_computes(planes(shift), np.tile(CODES, (8, 1)) * SCALE)


@pytest.mark.parametrize("amount", [-2, 8])
def test_a_shift_that_means_nothing_is_not_evaluated(amount: int) -> None:
    layer = only(planes(np.int8, (0, 2, 4, amount)))
    assert layer.status == KEPT
    assert "(BitShift) cannot be evaluated" in layer.reason


SHIFTED_BYTES = """
  b0 = BitShift <direction = "RIGHT"> (packed, n0) s0 = Cast <to = {0}> (b0) c0 = BitwiseAnd (s0, three)
  b1 = BitShift <direction = "RIGHT"> (packed, n1) s1 = Cast <to = {0}> (b1) c1 = BitwiseAnd (s1, three)
  b2 = BitShift <direction = "RIGHT"> (packed, n2) s2 = Cast <to = {0}> (b2) c2 = BitwiseAnd (s2, three)
  b3 = BitShift <direction = "RIGHT"> (packed, n3) c3 = Cast <to = {1}> (b3)
  planes = Concat <axis = 0> (c0, c1, c2, c3) levels = Cast <to = 1> (planes) w = Sub (levels, one)
  y = Gemm <transB = 1> (x, w)
"""


UINT8, INT8, INT16 = TensorProto.UINT8, TensorProto.INT8, TensorProto.INT16
PARTS = (CODES + 1).astype(np.uint8).reshape(4, -1, K)
BYTES = (PARTS[0] | PARTS[1] << 2 | PARTS[2] << 4 | PARTS[3] << 6).astype(np.uint8)


def shifted_bytes(types: tuple[int, int], body: str = SHIFTED_BYTES) -> onnx.ModelProto:
    known: dict[str, Any] = {"packed": BYTES, "three": np.uint8(3), "one": np.float32(1)}
    known |= {f"n{i}": np.uint8(2 * i) for i in range(4)}
    return parse(body.format(*types), known)


@pytest.mark.parametrize("types", [(UINT8, UINT8), (INT8, INT8), (INT8, UINT8), (UINT8, INT8)])
def test_bytes_that_are_shifted_may_be_of_either_sign(types: tuple[int, int]) -> None:
    """torch.onnx mixes int8 and uint8, and the original does not load; the bits are the same."""
    assert_computes(shifted_bytes(types), CODES)


@pytest.mark.parametrize("types", [(INT16, UINT8), (UINT8, INT16)])
def test_integers_of_unlike_widths_are_not_evaluated(types: tuple[int, int]) -> None:
    layer = only(shifted_bytes(types))
    assert layer.status == KEPT
    assert "inconsistent type" in layer.reason or "cannot be evaluated" in layer.reason


def test_a_sign_that_means_something_else_in_the_other_type_is_not_evaluated() -> None:
    whole_bytes = SHIFTED_BYTES.replace("(b3)", "(packed)")
    layer = only(shifted_bytes((UINT8, INT8), whole_bytes))
    assert layer.status == KEPT
    assert "inconsistent type" in layer.reason


QUANT = "qonnx.custom_op.general.Quant"
DOWN = '<narrow = 1, signed = 1, rounding_mode = "{}">'
LATENT = models.latent(shape=(N, K))


@pytest.mark.parametrize("mode", ["ROUND", "HALF_EVEN"])
def test_a_quantizer_of_qonnx_is_evaluated_and_gone(mode: str) -> None:
    body = f"w = {QUANT} {DOWN.format(mode)} (latent, step, zero, bits) t = Transpose (w) y = MatMul (x, t)"
    numbers = {"step": np.float32(SCALE), "zero": np.float32(0), "bits": np.float32(2)}
    model = parse(body, {"latent": LATENT, **numbers})
    assert_computes(model, CODES * SCALE)
    assert models.op_types(models.pack(model)[0]) == ["TernaryLinear"]


def test_a_bipolar_quantizer_of_qonnx_is_a_binary_weight() -> None:
    body = "w = qonnx.custom_op.general.BipolarQuant (latent, steps) y = Gemm <transB = 1> (x, w)"
    steps = RNG.uniform(0.5, 2, (N, 1)).astype(np.float32)
    model = parse(body, {"latent": LATENT, "steps": steps})
    assert_computes(model, np.where(LATENT >= 0, steps, -steps))
    assert only(model).scheme == "binary"


def test_a_one_bit_quantizer_of_qonnx_is_a_binary_weight() -> None:
    body = f"w = {QUANT} <narrow = 0, signed = 1> (latent, step, zero, bits) y = Gemm <transB = 1> (x, w)"
    numbers = {"step": np.float32(0.5), "zero": np.float32(0), "bits": np.float32(1)}
    assert_computes(parse(body, {"latent": LATENT, **numbers}), np.where(LATENT >= 0, 0.5, -0.5))


@pytest.mark.parametrize(
    ("attributes", "bits", "reason"),
    [
        (DOWN.format("ROUND"), 4, "the weights are dense"),
        ("<narrow = 0, signed = 1>", 2, "the weights are dense"),
        ("<narrow = 0, signed = 0>", 1, "all nonzero weights have one sign"),
        (DOWN.format("UP"), 2, "the rounding mode `UP` is not known"),
        (DOWN.format("ROUND"), 0, "it has 0 bits"),
    ],
)
def test_other_quantizers_of_qonnx_are_kept(attributes: str, bits: int, reason: str) -> None:
    body = f"w = {QUANT} {attributes} (latent, step, zero, bits) y = Gemm <transB = 1> (x, w)"
    numbers = {"step": np.float32(SCALE / 2), "zero": np.float32(0), "bits": np.float32(bits)}
    layer = only(parse(body, {"latent": LATENT, **numbers}))
    assert layer.status == KEPT
    assert reason in layer.reason


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_a_scale_that_was_rounded_to_half_precision_is_the_rounded_one(half: str) -> None:
    """Weights of float32 between two Casts: what the product reads counts, in float32."""
    type_number = helper.np_dtype_to_tensor_dtype(np.dtype(models.HALVES[half]))
    body = f"""{QUANTIZER} w = Mul (weight_codes, weight_scale) narrow = Cast <to = {type_number}> (w)
      wide = Cast <to = 1> (narrow) y = MatMul (quantized, wide)"""
    scale = np.float32(SCALE)
    known = {"weight_codes": np.ascontiguousarray(CODES.T).astype(np.float32), "weight_scale": scale}
    model = parse(body, known)
    layer = only(model)
    assert (layer.status, layer.activation, layer.numerics) == (PACKED, "int8_token", "exact")
    rounded = scale.astype(models.HALVES[half]).astype(np.float32)
    assert layer.scale == rounded != scale
    x = models.tokens(3, k=K)
    (got,), (want,) = models.run(models.pack(model)[0], x), models.run(model, x)
    assert models.largest_difference(got, want) < 1e-5


def test_shifts_that_are_a_range_of_bytes() -> None:
    """ONNX has no Range of uint8, but jax2onnx writes it; packed, the model runs."""
    four = (CODES.T + 1).astype(np.uint8).reshape(K // 4, 4, N)
    packed = four[:, 0] | four[:, 1] << 2 | four[:, 2] << 4 | four[:, 3] << 6
    body = f"""{QUANTIZER} steps = Range (zero, eight, two) shifts = Reshape (steps, column)
      rows = Unsqueeze (packed, one) shifted = BitShift <direction = "RIGHT"> (rows, shifts)
      masked = BitwiseAnd (shifted, three) flat = Reshape (masked, sides) wide = Cast <to = 1> (flat)
      w = Sub (wide, "1") y = MatMul (quantized, w)"""
    bytes_of = {"zero": 0, "eight": 8, "two": 2, "three": 3}
    known = {
        **{name: np.uint8(value) for name, value in bytes_of.items()},
        "column": np.array([4, 1]),
        "one": np.array([1]),
        "sides": np.array([K, N]),
        "1": np.float32(1),
        "packed": packed,
    }
    model = parse(body, known)
    layer = only(model)
    assert (layer.status, layer.activation, layer.scheme) == (PACKED, "int8_token", "ternary")
    x = models.tokens(3, k=K)
    (got,) = models.run(models.pack(model)[0], x)
    plain = parse(f"{QUANTIZER} y = MatMul (quantized, w)", {"w": CODES.T.astype(np.float32)})
    (want,) = models.run(plain, x)
    assert models.largest_difference(got, want) < 1e-5
