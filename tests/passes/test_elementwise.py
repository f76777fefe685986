"""Large weights are evaluated in blocks, with the same result as at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import models
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from bitcc.passes import constants, elementwise
from bitcc.passes.constants import Constants
from bitcc.passes.matrix import Matrix
from bitcc.passes.table import NO_CODE, CodeTable, Table

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Array = NDArray[Any]

SHAPE = (301, 999)  # more than a block, and a last block that is not full
ELEMENTS = {"float32": "float", "float16": "float16", "bfloat16": "bfloat16"}
QUANTIZER = """
  a = Abs (w) m = ReduceMean <keepdims = 0> (a) r = Reciprocal (m) v = Mul (w, r) q = Round (v)
  c = Clip (q, low, high) d = Div (c, r) e = Sub (d, w) z = Add (w, e)
"""
BODIES = {
    "a quantizer and its residue": QUANTIZER,
    "rows": "m = ReduceMean (w, last) v = Div (w, m) z = Round (v)",
    "columns": "m = ReduceMean (w, first) v = Div (w, m) z = Neg (v)",
    "signs": "s = Sign (w) a = Abs (w) q = Sqrt (a) z = Mul (s, q)",
    "two large ones": "u = Mul (w, other) z = Sub (u, w)",
    "a transposition in between": "t = Transpose (w) u = Mul (t, low) v = Transpose (u) z = Add (v, w)",
    "what is no element-wise node": "u = Mul (w, high) s = Softmax (u) z = Add (s, w)",
    "broadcast to more": "m = ReduceMean (w, last) n = Mul (m, high) z = Add (w, n)",
    "the same twice": "u = Identity (w) z = Add (u, u)",
    "another name for a step": "u = Mul (w, high) i = Identity (u) z = Add (i, w)",
    "a step in its own type": "u = Mul (w, high) t = Transpose (w) c = CastLike (u, t) z = Add (c, w)",
}


def proto(body: str, dtype: str) -> onnx.ModelProto:
    content = f"""
      <ir_version: 10, opset_import: ["" : 18]>
      main_graph (float x) => (z) <int64[1] last = {{-1}}, int64[1] first = {{0}}> {{ {body} }}
    """.replace("=> (z)", f"=> ({ELEMENTS[dtype]}[301, 999] z)")
    rng = np.random.default_rng(0)
    element = np.dtype(getattr(ml_dtypes, dtype, dtype))
    known = {"w": rng.standard_normal(SHAPE), "other": rng.standard_normal(SHAPE), "low": -1, "high": 1}
    return models.parse(content, {name: np.asarray(array).astype(element) for name, array in known.items()})


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("body", BODIES)
def test_blocks_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch, body: str, dtype: str) -> None:
    model = proto(BODIES[body], dtype)
    graph = ir.from_proto(model)
    got = Constants(graph).array(graph.graph.outputs[0])
    if "Reduce" in BODIES[body]:  # onnx's evaluator loses most of a sum in half precision
        monkeypatch.setattr(constants, "_LARGE", got.size + 1)
        want = Constants(graph).array(graph.graph.outputs[0])
    else:
        (want,) = ReferenceEvaluator(model).run(None, {"x": np.float32(0)})
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


def test_a_large_value_is_left_to_be_computed_and_a_small_one_is_not() -> None:
    model = ir.from_proto(proto(QUANTIZER, "float32"))
    known = Constants(model)
    values = ir.convenience.create_value_mapping(model.graph)
    assert [node.op_type for node in known.elementwise(values["c"]).nodes] == ["Mul", "Round", "Clip"]
    assert not known.elementwise(values["r"]).nodes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_a_table(dtype: str) -> None:
    model = ir.from_proto(proto(QUANTIZER, dtype))
    found = Constants(model).elementwise(model.graph.outputs[0])
    assert found.table is not None
    np.testing.assert_array_equal(found.table.look_up(slice(None)), found.evaluate(found.leaves))


@pytest.mark.parametrize("body", ["two large ones", "rows"])
def test_what_depends_on_more_than_one_half_is_no_table(body: str) -> None:
    model = ir.from_proto(proto(BODIES[body], "float16"))
    assert Constants(model).elementwise(model.graph.outputs[0]).table is None


def check_codes(table: NDArray[np.int8], patterns: Array) -> None:
    got, want = np.empty(patterns.shape, np.int8), table[patterns]
    largest = Table(table, patterns).largest(slice(None))
    fits = CodeTable(table).read(patterns, got, largest)
    assert fits == (want != NO_CODE).all()
    if fits:
        np.testing.assert_array_equal(got, want)


@given(
    ends=st.lists(st.tuples(st.sampled_from([-1, 0, 1, NO_CODE]), st.integers(1, 255)), max_size=20),
    used=st.sets(st.integers(0, 255), min_size=1),
)
def test_codes_of_bytes_are_those_of_the_table(ends: list[tuple[int, int]], used: set[int]) -> None:
    table = np.zeros(256, np.int8)
    for code, first in ends:
        table[first:] = code
    check_codes(table, np.array([*used, *used], np.uint8).reshape(2, -1))


@pytest.mark.parametrize("first", [0, 1, 100, 253, 254, 255])
@pytest.mark.parametrize("other", [None, 3, 200])
def test_codes_of_integers_in_a_row_are_those_of_the_table(first: int, other: int | None) -> None:
    """``other`` is a byte that has no code."""
    table = np.full(256, NO_CODE, np.int8)
    line = (first + np.arange(3)) % 256
    table[line] = [-1, 0, 1]
    some = np.tile(line, 5)
    some[7] = some[7] if other is None else (first + other) % 256
    check_codes(table, some.astype(np.uint8).reshape(3, 5))


@pytest.mark.parametrize(
    ("first", "without_code"), [(1, 0), (100, 0), (0x3C00, 0), (100, 1), (0x3C00, 0x3BFF)]
)
@pytest.mark.parametrize("last", [0x3C00, 0x7C00, 0x8000])
@pytest.mark.parametrize("other", [0, -1, 1, 2])
def test_codes_are_looked_up_whatever_the_table_says(
    first: int, without_code: int, last: int, other: int
) -> None:
    """The usual ones, the sign of all that is not small, are compared rather than read."""
    values = np.full(1 << 16, 2, np.int8)
    for sign, code in ((0, 1), (1 << 15, -1)):
        values[sign : sign + first - without_code] = 0
        values[sign + first : sign + last] = code
    changed = values.copy()
    changed[[5, 0x8005]] = other
    patterns = np.random.default_rng(0).permutation(1 << 16).astype(np.uint16).reshape(256, 256)
    turned = np.where(values == NO_CODE, NO_CODE, -values)
    for table in (values, changed, turned, np.zeros_like(values)):
        for some in (
            patterns,
            patterns & 0xBBFF,
            patterns & 0x8007,
            patterns & 0x8000 | first,
            patterns | 0x8000,
        ):
            check_codes(table, some)


def test_every_half_is_widened_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    node = ir.Node("", "Cast", [ir.Value(name="w")], [ir.AttrInt64("to", ir.DataType.FLOAT)])
    for some in (finite, halves, finite[:0]):
        with np.errstate(invalid="ignore"):
            got = elementwise.apply(node, [some])
        np.testing.assert_array_equal(got.view(np.uint32), some.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("shape", [(301, 999), (5, 100_000), (100_000, 5), (70, 64), (1, 7)])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_tiles_of_a_matrix_are_all_of_it_once(shape: tuple[int, int], transposed: bool) -> None:  # noqa: FBT001
    array = np.random.default_rng(0).standard_normal(shape)
    matrix = Matrix(Matrix.of(array).content, transposed)
    want = array.T if transposed else array
    assert matrix.shape == want.shape
    got = np.zeros(want.shape)
    for at in matrix.tiles():
        assert matrix.tile(*at).flags.c_contiguous
        got[at] += matrix.tile(*at)
    np.testing.assert_array_equal(got, want)


def test_what_is_small_is_evaluated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    reduce = constants.reductions.reduce

    def spy(node: ir.Node, *arguments: Any) -> Any:
        seen.append(node.op_type)
        return reduce(node, *arguments)

    monkeypatch.setattr(constants.reductions, "reduce", spy)
    model = ir.from_proto(proto(QUANTIZER, "float32"))
    known = Constants(model)
    for _ in range(3):
        known.array(model.graph.outputs[0])
    assert seen == ["ReduceMean"]
