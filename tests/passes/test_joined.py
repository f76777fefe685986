"""Products that were cut along their inputs are one layer, where their parts are quantised together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx_ir as ir
import pytest

from bitcc.facts import KEPT, PACKED

if TYPE_CHECKING:
    import onnx

K, N = models.K, models.N
_CODES, _SCALE = models.quantized(models.latent())
_W = np.ascontiguousarray(_CODES.T) * np.float32(_SCALE)  # [K, N]
_BIAS = np.linspace(-1, 1, N, dtype=np.float32)
_VALUES: dict[str, Any] = {
    "w": _W,
    "w1": _W[:40],
    "w2": _W[40:],
    "w3": _W[:70],
    "wa": _W[:40],
    "wb": _W[40:70],
    "wc": _W[70:],
    "wm": _W[40:80],
    "we": _W[80:],
    "i0": np.int64(0),
    "i1": np.int64(1),
    "i2": np.int64(2),
    "i40": np.int64(40),
    "larger": _W[40:] * np.float32(1.5),
    "dense": np.random.default_rng(5).standard_normal((60, N)).astype(np.float32),
    "rows1": np.ascontiguousarray(_W[:40].T),
    "rows2": np.ascontiguousarray(_W[40:].T),
    "sizes": np.array([40, 60]),
    "thirds": np.array([40, 30, 30]),
    "tokens": np.array([1, 2]),
    "start": np.array([0]),
    "cut": np.array([40]),
    "late": np.array([50]),
    "from_end": np.array([-60]),
    "beyond": np.array([np.iinfo(np.int64).max]),
    "last": np.array([-1]),
    "first": np.array([0]),
    "bias": _BIAS,
    "two": np.float32(2),
    "eps": np.float32(1e-5),
    "qmax": np.float32(127),
    "low": np.float32(-128),
}
QUANTIZER = """a = Abs (x) m = ReduceMax <keepdims = 1> (a, last) c = Clip (m, eps) r = Reciprocal (c)
  s = Mul (r, qmax) v = Mul (x, s) u = Round (v) codes = Clip (u, low, qmax)"""
DEQUANTISED = f"{QUANTIZER} q = Div (codes, s)"
SPLIT = f"{DEQUANTISED} h1, h2 = Split <axis = -1> (q, sizes)"
SLICED = f"{DEQUANTISED} h1 = Slice (q, start, cut, last) h2 = Slice (q, from_end, beyond, last)"
CODES = f"{QUANTIZER} h1, h2 = Split <axis = 2> (codes, sizes)"
PRODUCTS = "p1 = MatMul (h1, w1) p2 = MatMul (h2, w2)"


def model(body: str, rows: str = "2, 3", outputs: str = "") -> onnx.ModelProto:
    """A model of a body that makes ``y``."""
    return models.parse(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        layer (float[{rows}, {K}] x) => (float[{rows}, {N}] y{outputs}) {{ {body} }}""",
        _VALUES,
    )


SUMS = {
    "a split": f"{SPLIT} {PRODUCTS} y = Add (p1, p2)",
    "slices": f"{SLICED} {PRODUCTS} y = Add (p2, p1)",
    "a sequence": f"""{DEQUANTISED} parts = SplitToSequence <axis = -1> (q, sizes) h1 = SequenceAt (parts, i0)
      h2 = SequenceAt (parts, i1) {PRODUCTS} y = Add (p1, p2)""",
    "a sequence of parts of one size": f"""{DEQUANTISED} parts = SplitToSequence <axis = 2> (q, i40)
      h1 = SequenceAt (parts, i0) h2 = SequenceAt (parts, i1) h3 = SequenceAt (parts, i2)
      p1 = MatMul (h1, w1) p2 = MatMul (h2, wm) p3 = MatMul (h3, we) t = Add (p1, p2) y = Add (t, p3)""",
    "the op for sums": f"{SPLIT} {PRODUCTS} y = Sum (p1, p2)",
    "three parts": f"""{DEQUANTISED} h1, h2, h3 = Split <axis = -1> (q, thirds) p1 = MatMul (h1, wa)
      p2 = MatMul (h2, wb) p3 = MatMul (h3, wc) t = Add (p1, p3) y = Add (t, p2)""",
    "slices of one matrix": f"""{SPLIT} l = Slice (w, start, cut, first) r1 = Slice (w, cut, beyond, first)
      p1 = MatMul (h1, l) p2 = MatMul (h2, r1) y = Add (p1, p2)""",
    "matrices that are stored as rows": f"""{SPLIT} l = Transpose <perm = [1, 0]> (rows1)
      r1 = Transpose <perm = [1, 0]> (rows2) p1 = MatMul (h1, l) p2 = MatMul (h2, r1) y = Add (p1, p2)""",
    "a bias behind the sum": f"{SPLIT} {PRODUCTS} t = Add (p1, p2) y = Add (t, bias)",
    "a bias behind the first part": f"{SPLIT} {PRODUCTS} t = Add (p1, bias) y = Add (t, p2)",
    "codes": f"{CODES} {PRODUCTS} t = Add (p1, p2) y = Div (t, s)",
    "codes, each part scaled": f"{CODES} {PRODUCTS} t1 = Div (p1, s) t2 = Div (p2, s) y = Add (t1, t2)",
    "codes, each part scaled twice": f"""{CODES} {PRODUCTS} i1 = Div (p1, s) i2 = Div (p2, s)
      t1 = Mul (i1, two) t2 = Mul (two, i2) y = Add (t1, t2)""",
}


@pytest.mark.parametrize("body", SUMS.values(), ids=SUMS)
def test_the_parts_of_a_layer_are_one(body: str) -> None:
    original = model(body)
    (layer,) = models.pack(original)[1]
    assert (layer.status, layer.activation, layer.N, layer.K) == (PACKED, "int8_token", N, K)
    assert models.op_types(models.assert_same(original)) == ["BitLinear"]


def test_the_parts_of_a_gemm_are_one() -> None:
    gemms = "p1 = Gemm <transB = 1> (h1, rows1) p2 = Gemm <transB = 1> (h2, rows2) y = Add (p1, p2)"
    assert models.op_types(models.assert_same(model(f"{SPLIT} {gemms}", rows="3"))) == ["BitLinear"]


def test_something_else_may_be_added_in_between() -> None:
    body = f"{SPLIT} {PRODUCTS} e = Slice (x, start, l, last) t = Add (p1, e) y = Add (t, p2)"
    original = models.parse(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        layer (float[2, 3, {K}] x) => (float[2, 3, {N}] y) {{ {body} }}""",
        {**_VALUES, "l": np.array([N])},
    )
    assert models.op_types(models.assert_same(original)) == ["Slice", "BitLinear", "Add"]


def test_layers_that_share_a_split_are_one_each() -> None:
    more = "p3 = MatMul (h1, w1) p4 = MatMul (h2, w2) z = Add (p3, p4)"
    original = model(f"{SPLIT} {PRODUCTS} y = Add (p1, p2) {more}", outputs=f", float[2, 3, {N}] z")
    assert [layer.K for layer in models.pack(original)[1]] == [K, K]
    models.assert_same(original, layers=2, merge=False)


OTHER = """e = Softsign (x) ea = Abs (e) em = ReduceMax <keepdims = 1> (ea, last) ec = Clip (em, eps)
  er = Reciprocal (ec) es = Mul (er, qmax) ev = Mul (e, es) eu = Round (ev) eb = Clip (eu, low, qmax)
  eq = Div (eb, es) g1, g2 = Split <axis = -1> (eq, sizes) o1 = MatMul (g1, w1) o2 = MatMul (g2, w2)"""
TOGETHER = {
    "one after the other": ("t1 = Add (p1, p2) t2 = Add (o1, o2) y = Add (t1, t2)", [K, K]),
    "one in the other": ("t1 = Add (o1, o2) t2 = Add (t1, p2) y = Add (p1, t2)", None),
    "mixed": ("t1 = Add (p1, o1) t2 = Add (p2, o2) y = Add (t1, t2)", None),
}


@pytest.mark.parametrize(("added", "columns"), TOGETHER.values(), ids=TOGETHER)
def test_sums_of_two_layers_are_right(added: str, columns: list[int] | None) -> None:
    original = model(f"{SPLIT} {OTHER} {PRODUCTS} {added}")
    packed, facts = models.pack(original)
    assert columns is None or [layer.K for layer in facts] == columns
    assert [layer.K for layer in facts if layer.status == PACKED].count(K) >= 1
    x = models.tokens(2, 3)
    assert models.largest_difference(models.run(packed, x)[0], models.run(original, x)[0]) < 1e-5
    assert len(models.bit_linears(packed)) == [layer.status for layer in facts].count(PACKED)
    read = {name for node in packed.graph.node for name in node.input} | {"y"}
    assert all(node.output[0] in read for node in packed.graph.node)


APART = {
    "parts with other scales": f"{SPLIT} p1 = MatMul (h1, w1) p2 = MatMul (h2, larger) y = Add (p1, p2)",
    "a part that is dense": f"{SPLIT} p1 = MatMul (h1, w1) p2 = MatMul (h2, dense) y = Add (p1, p2)",
    "no quantizer": f"h1, h2 = Split <axis = -1> (x, sizes) {PRODUCTS} y = Add (p1, p2)",
    "a difference": f"{SPLIT} {PRODUCTS} y = Sub (p1, p2)",
    "a product": f"{SPLIT} {PRODUCTS} y = Mul (p1, p2)",
    "one part twice": f"{SPLIT} p1 = MatMul (h1, w1) p2 = MatMul (h1, w1) y = Add (p1, p2)",
    "slices with a gap": f"""{DEQUANTISED} h1 = Slice (q, start, cut, last) h2 = Slice (q, late, beyond, last)
      l = Slice (w2, start, late, first) p1 = MatMul (h1, w1) p2 = MatMul (h2, l) y = Add (p1, p2)""",
    "slices that overlap": f"""{DEQUANTISED} h1 = Slice (q, start, late, last)
      h2 = Slice (q, cut, beyond, last)
      l = Slice (w, start, late, first) p1 = MatMul (h1, l) p2 = MatMul (h2, w2) y = Add (p1, p2)""",
    "parts that are scaled unlike": f"{SPLIT} {PRODUCTS} t = Mul (p2, two) y = Add (p1, t)",
    "codes of which one part is scaled": f"{CODES} {PRODUCTS} t = Div (p2, s) y = Add (p1, t)",
}


@pytest.mark.parametrize("body", APART.values(), ids=APART)
def test_what_is_not_one_layer_stays_as_it_is(body: str) -> None:
    original = model(body)
    packed, facts = models.pack(original)
    assert [layer.status for layer in facts] == [KEPT, KEPT]
    assert packed == ir.to_proto(ir.from_proto(original))


def test_a_sum_of_which_a_part_is_an_output_stays_as_it_is() -> None:
    original = model(f"{SPLIT} {PRODUCTS} y = Add (p1, p2)", outputs=f", float[2, 3, {N}] p1")
    packed, facts = models.pack(original)
    assert [layer.status for layer in facts] == [KEPT, KEPT]
    assert packed == ir.to_proto(ir.from_proto(original))


def test_a_layer_that_is_not_packed_stays_in_parts() -> None:
    original = model(SUMS["a bias behind the first part"])
    packed, (layer,) = models.pack(original, min_weights=N * K + 1)
    assert (layer.status, layer.K) == (KEPT, K)
    assert packed == ir.to_proto(ir.from_proto(original))


def test_parts_that_are_quantised_by_themselves_are_layers() -> None:
    own = "".join(
        f"""a{i} = Abs (x{i}) m{i} = ReduceMax <keepdims = 1> (a{i}, last) c{i} = Clip (m{i}, eps)
        r{i} = Reciprocal (c{i}) s{i} = Mul (r{i}, qmax) v{i} = Mul (x{i}, s{i}) u{i} = Round (v{i})
        b{i} = Clip (u{i}, low, qmax) h{i} = Div (b{i}, s{i}) """
        for i in (1, 2)
    )
    original = model(f"x1, x2 = Split <axis = -1> (x, sizes) {own} {PRODUCTS} y = Add (p1, p2)")
    assert [layer.K for layer in models.pack(original)[1]] == [40, 60]
    models.assert_same(original, layers=2)
