"""Constants are found by their ancestry and evaluated exactly, whatever the type and the size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bitcc.passes._refused import Refused
from bitcc.passes.constants import Constants

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def graph(body: str, known: dict[str, Array] | None = None, *, opset: int = 18, made: str = "") -> ir.Model:
    """A model of one input x; ``made`` are the initializers of its text."""
    content = f"""
      <ir_version: 10, opset_import: ["" : {opset}, "other" : 1]>
      main_graph (float[2, 3] x) => (float[2, 3] y) <{made}> {{ {body} y = Identity (x) }}
    """
    return ir.from_proto(models.parse(content, known or {}))


def value(model: ir.Model, name: str) -> ir.Value:
    return ir.convenience.create_value_mapping(model.graph)[name]


def evaluated(model: ir.Model, name: str = "z") -> Array:
    return Constants(model).array(value(model, name))


def is_constant(model: ir.Model, name: str = "z") -> bool:
    return value(model, name) in Constants(model)


@pytest.mark.parametrize("opset", [13, 15, 16])
@pytest.mark.parametrize("op", ["GreaterOrEqual", "LessOrEqual"])
def test_comparisons_are_evaluated_where_onnx_infers_no_shape_of_them(op: str, opset: int) -> None:
    weight = models.latent()
    model = graph(f"z = {op} (w, o)", {"w": weight, "o": np.float32(0)}, opset=opset)
    want = weight >= 0 if op == "GreaterOrEqual" else weight <= 0
    np.testing.assert_array_equal(evaluated(model), want)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"])
def test_reductions_of_half_precision_do_not_lose_what_they_add(half: str, op: str) -> None:
    """In its own type a sum of 6144 values stops growing at some hundreds of them."""
    array = np.abs(models.latent(shape=(48, 128))).astype(HALVES[half])
    wide = array.astype(np.float64)
    want = {
        "ReduceMean": wide.mean(),
        "ReduceSum": wide.sum(),
        "ReduceL1": wide.sum(),
        "ReduceL2": np.sqrt(np.square(wide).sum()),
        "ReduceSumSquare": np.square(wide).sum(),
    }[op]
    got = evaluated(graph(f"z = {op} <keepdims = 0> (w)", {"w": array}))
    assert got.dtype == array.dtype
    assert got == np.float64(want).astype(array.dtype)


MAGNITUDES = {
    "in their own type": "a = Abs (w) z = ReduceSum <keepdims = 0> (a)",
    "widened first": "v = Cast <to = 1> (w) a = Abs (v) z = ReduceSum <keepdims = 0> (a)",
    "widened last": "a = Abs (w) v = Cast <to = 1> (a) z = ReduceSum <keepdims = 0> (v)",
    "by the reduction": "v = Cast <to = 1> (w) z = ReduceL1 <keepdims = 0> (v)",
}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("body", MAGNITUDES.values(), ids=MAGNITUDES)
def test_the_magnitudes_of_many_halves_add_up(half: str, body: str) -> None:
    array = models.latent("heavy", (301, 999)).astype(HALVES[half])
    array[0, :3] = 100, 1e-7, -0.0
    model = graph(body, {"w": array})
    total = np.abs(array.astype(np.float64)).sum()
    got = evaluated(model)
    assert float(got) == pytest.approx(total, rel=float(ml_dtypes.finfo(got.dtype).eps))
    for special in (np.inf, -np.inf, np.nan):
        array[-1, -1] = special
        np.testing.assert_equal(float(evaluated(graph(body, {"w": array}))), abs(special))


@pytest.mark.parametrize("half", HALVES)
def test_what_is_not_the_magnitudes_of_halves_adds_up_as_it_is(half: str) -> None:
    array = np.abs(models.latent("heavy", (301, 999))).astype(HALVES[half])
    array[1::2] *= -1
    got = evaluated(graph("v = Cast <to = 1> (w) z = ReduceSum <keepdims = 0> (v)", {"w": array}))
    assert got == pytest.approx(array.astype(np.float64).sum(), rel=1e-6)


def test_a_mean_of_single_precision_is_the_rounded_exact_mean() -> None:
    array = np.abs(models.latent("heavy", (500, 300)))
    assert evaluated(graph("z = ReduceMean (w)", {"w": array})) == np.float32(array.mean(dtype=np.float64))


REDUCTIONS = {
    "axes as an attribute": ("z = ReduceMean <axes = [1], keepdims = 1> (w)", 17, ""),
    "axes as an input": ("z = ReduceMean <keepdims = 1> (w, axes)", 18, "int64[1] axes = {1}"),
    "negative axes": ("z = ReduceMean (w, axes)", 18, "int64[1] axes = {-1}"),
    "axes computed": (
        "c = Constant <value_ints = [-1]> () axes = Reshape (one, c) z = ReduceMean (w, axes)",
        18,
        "int64 one = {1}",
    ),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_axes_are_read_wherever_the_opset_has_them(name: str) -> None:
    body, opset, made = REDUCTIONS[name]
    array = models.latent()
    got = evaluated(graph(body, {"w": array}, opset=opset, made=made))
    np.testing.assert_allclose(got, array.mean(axis=1, keepdims=True, dtype=np.float64), rtol=1e-6)


def test_without_axes_all_of_them_are_reduced() -> None:
    assert evaluated(graph("z = ReduceSum (w)", {"w": np.ones((2, 3), np.float32)})).shape == (1, 1)


def test_no_axes_can_mean_no_reduction() -> None:
    array = np.ones((2, 3), np.float32)
    got = evaluated(graph("z = ReduceSum <noop_with_empty_axes = 1> (w)", {"w": array}))
    np.testing.assert_array_equal(got, array)


RANDOM = "its weights are drawn at random in every run, by "


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("noise = RandomUniformLike (w) z = Add (w, noise)", f"{RANDOM}`noise` (RandomUniformLike)"),
        ("noise = RandomNormal <shape = [2, 3]> () z = Add (w, noise)", f"{RANDOM}`noise` (RandomNormal)"),
        ("z = Bernoulli (w)", f"{RANDOM}`z` (Bernoulli)"),
        ("z = Add (w, x)", "`z` is computed at run time, not constant"),
        ("z = other.Unknown (w)", "its weights are computed by `z`, an op of other (Unknown)"),
    ],
)
def test_what_may_differ_from_run_to_run_is_not_constant(body: str, reason: str) -> None:
    model = graph(body, {"w": np.full((2, 3), 0.5, np.float32)})
    assert not is_constant(model)
    with pytest.raises(Refused) as caught:
        evaluated(model)
    assert caught.value.reason == reason


def test_an_initializer_that_the_caller_can_override_is_not_constant() -> None:
    model = graph("z = Neg (w)", {"w": np.ones(3, np.float32)})
    model.graph.inputs.append(value(model, "w"))
    assert not is_constant(model)


def test_in_the_oldest_files_every_initializer_is_an_input_and_still_constant() -> None:
    model = graph("z = Neg (w)", {"w": np.ones(3, np.float32)})
    model.graph.inputs.append(value(model, "w"))
    model.ir_version = 3
    assert is_constant(model)


def test_cast_like_reads_only_the_type_of_its_second_input() -> None:
    model = graph("half = Cast <to = 10> (x) z = CastLike (c, half)", made="float c = {1e-5}")
    value(model, "half").dtype = ir.DataType.FLOAT16
    got = evaluated(model)
    assert got.dtype == np.float16
    assert got == np.float16(1e-5)


def test_a_node_follows_the_opset_of_the_model() -> None:
    """Clip has its bounds as attributes before opset 11; the newest opset knows none of them."""
    model = graph("z = Unsqueeze <axes = [0]> (w)", {"w": np.ones(3, np.float32)}, opset=12)
    assert evaluated(model).shape == (1, 3)


@pytest.mark.parametrize("opset", [15, 17, 18, 20, 21, 23])
def test_dequantize_linear_is_evaluated_in_every_opset(opset: int) -> None:
    model = graph(
        "z = DequantizeLinear (w, s)",
        {"w": np.array([[-1, 0, 1]], np.int8)},
        made="float s = {0.5}",
        opset=opset,
    )
    np.testing.assert_array_equal(evaluated(model), [[-0.5, 0, 0.5]])


@pytest.mark.parametrize("index", [(1, 2), (3, 1), (3, 4)])
def test_elements_are_gathered_by_indices_that_are_fewer_than_the_data(index: tuple[int, int]) -> None:
    data = np.arange(12, dtype=np.float32).reshape(3, 4)
    places = np.arange(np.prod(index)).reshape(index) % 4 - 2
    model = graph("z = GatherElements <axis = 1> (w, i)", {"w": data, "i": places})
    expected = [[data[row, column] for column in columns] for row, columns in enumerate(places)]
    np.testing.assert_array_equal(evaluated(model), expected)


@pytest.mark.parametrize("index", [np.zeros((4, 1), int), np.full((1, 1), 4), np.zeros(3, int)])
def test_elements_that_are_not_there_are_not_gathered(index: Array) -> None:
    model = graph("z = GatherElements <axis = 1> (w, i)", {"w": np.ones((3, 4), np.float32), "i": index})
    with pytest.raises(Refused, match="GatherElements"):
        evaluated(model)


def test_a_node_that_cannot_be_evaluated_is_named_with_the_cause() -> None:
    model = graph("[bad] z = Reshape (w, shape)", {"w": np.ones(3, np.float32)}, made="int64[1] shape = {7}")
    with pytest.raises(Refused) as caught:
        evaluated(model)
    assert "the constant node `bad` (Reshape) cannot be evaluated" in caught.value.reason


def test_a_reduction_that_cannot_be_evaluated_is_refused_too() -> None:
    model = graph("[bad] z = ReduceSum (w, axes)", {"w": np.ones(3, np.float32)}, made="int64[1] axes = {7}")
    with pytest.raises(Refused):
        evaluated(model)


SCALARS = {
    "a scalar": ("z = Identity (c)", "float c = {0.5}", 0.5),
    "one element of any rank": ("z = Identity (c)", "float[1, 1, 1] c = {0.5}", 0.5),
    "an integer": ("z = Identity (c)", "int64 c = {127}", 127.0),
    "an expression": ("z = Mul (c, c)", "float c = {0.5}", 0.25),
    "two elements": ("z = Identity (c)", "float[2] c = {1, 2}", None),
    "a value of the run": ("z = Identity (x)", "", None),
}


@pytest.mark.parametrize("name", SCALARS)
def test_a_scalar_is_a_constant_of_one_element(name: str) -> None:
    body, made, want = SCALARS[name]
    model = graph(body, made=made)
    constants = Constants(model)
    assert constants.scalar(value(model, "z")) == want
    assert constants.scalar(value(model, "z")) == want


def test_nothing_is_no_scalar() -> None:
    assert Constants(graph("")).scalar(None) is None


def test_a_weight_in_a_file_is_not_mapped_any_more_after_it_was_read(tmp_path: Path) -> None:
    content = "z = Neg (w)"
    proto = ir.to_proto(graph(content, {"w": models.latent()}))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="model.data")
    model = ir.load(path)
    got = evaluated(model)
    with open("/proc/self/maps", encoding="utf-8") as maps:  # noqa: PTH123 - not a file of ours
        assert str(path.with_name("model.data")) not in maps.read()
    np.testing.assert_array_equal(got, -models.latent())


GROWS = {
    "ConstantOfShape": "z = ConstantOfShape (large)",
    "Expand": "z = Expand (one, large)",
    "Tile": "z = Tile (row, large)",
    "Range": "z = Range (nothing, far, step)",
    "Pad": "z = Pad (row, ends)",
    "an outer product": "r = Range (nothing, some, step) c = Unsqueeze (r, last) z = Mul (c, r)",
    "many copies": "a = Concat <axis = 0> ("
    + ", ".join(["thousand"] * 200)
    + ") z = Concat <axis = 0> ("
    + ", ".join("a" * 200)
    + ")",
}


@pytest.mark.parametrize("name", GROWS)
def test_a_few_bytes_do_not_become_gigabytes(name: str) -> None:
    known = {
        "large": np.array([1 << 20, 1 << 20]),
        "one": np.float32(1),
        "row": np.ones((1, 4), np.float32),
        "ends": np.array([0, 0, 1 << 20, 1 << 20]),
        "nothing": np.int64(0),
        "some": np.int64(1 << 20),
        "far": np.int64(1 << 40),
        "step": np.int64(1),
        "last": np.array([1]),
        "thousand": np.ones(1000, np.float32),
    }
    with pytest.raises(Refused, match=r"would make \d+ MB"):
        evaluated(graph(GROWS[name], known))


def test_constants_may_grow_as_those_of_packed_weights_do() -> None:
    """Two bits to the indices of a scatter: 32 times."""
    packed = np.zeros(4 << 20, np.uint8)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)
    body = 'p = Unsqueeze (packed, last) s = BitShift <direction = "RIGHT"> (p, shifts) z = Cast <to = 7> (s)'
    known = {"packed": packed, "shifts": shifts, "last": np.array([1])}
    assert evaluated(graph(body, known)).nbytes == 32 * packed.nbytes


def test_a_node_whose_size_cannot_be_told_is_not_evaluated() -> None:
    with pytest.raises(Refused, match="cannot be told"):
        evaluated(
            graph("s = SequenceConstruct (a, a) z = ConcatFromSequence <axis = 0> (s)", {"a": np.ones(3)})
        )
