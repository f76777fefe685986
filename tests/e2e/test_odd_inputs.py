"""Legal but odd models, and files that lie, give a bundle or an error and never a traceback or a hang."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import models
import numpy as np
import onnx
import pytest
from e2e.command import reseal
from onnx import TensorProto, external_data_helper, helper, numpy_helper

import bitcc
from bitcc import bundle, verify
from bitcc.errors import BundleError, ModelError

if TYPE_CHECKING:
    from pathlib import Path


def _compile(model: onnx.ModelProto, folder: Path) -> bundle.Bundle:
    onnx.save(model, folder / "m.onnx")
    return bitcc.compile(folder / "m.onnx", folder / "out", min_weights=0)


def _branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    return helper.make_graph([node], name, [], [value])


def test_a_layer_ends_where_a_branch_begins(tmp_path: Path) -> None:
    model = models.build("dynamo_folded_bias")
    graph = model.graph
    product = next(n for n in graph.node if n.op_type == "MatMul")
    reader = next(n for n in graph.node if product.output[0] in n.input)
    out = reader.output[0]
    inside = onnx.NodeProto()
    inside.CopyFrom(reader)
    inside.output[0] = "inside"
    other = helper.make_node("Neg", ["x"], ["other"])
    graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    at = list(graph.node).index(reader)
    graph.node.remove(reader)
    branches = {"then_branch": _branch("then", inside), "else_branch": _branch("else", other)}
    graph.node.insert(at, helper.make_node("If", ["c"], [out], **branches))
    assert len(_compile(model, tmp_path).packed) == 1


def test_a_cycle_and_a_missing_value_are_refused(tmp_path: Path) -> None:
    model = models.build("dynamo")
    product = next(n for n in model.graph.node if n.op_type == "MatMul")
    product.input[0] = "a"
    with pytest.raises(ModelError, match="reads `a`, which nothing makes"):
        _compile(model, tmp_path)
    model.graph.node.extend([helper.make_node("Identity", [i], [o]) for i, o in ("ab", "ba")])
    with pytest.raises(ModelError, match="its graph has a cycle"):
        _compile(model, tmp_path)


def test_nodes_in_any_order_are_compiled(tmp_path: Path) -> None:
    """Some converters append the Casts that they insert; onnxruntime sorts, and so does bitcc."""
    model = models.build("dynamo")
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    assert len(_compile(model, tmp_path).packed) == 1


def test_a_model_that_only_imports_the_domain_is_compiled(tmp_path: Path) -> None:
    """The offline optimiser of onnxruntime imports every domain that its process knows."""
    model = models.build("dynamo")
    model.opset_import.append(helper.make_opsetid("bitcc", 1))
    assert len(_compile(model, tmp_path).packed) == 1


def test_a_huge_static_batch_is_proven_on_few_tokens(tmp_path: Path) -> None:
    model = models.build("dynamo", rows="1000000000, 1000")
    built = _compile(model, tmp_path)
    assert built.packed[0].max_error is not None
    assert built.manifest.verify["status"] == "not run"


def test_two_near_scales_in_half_precision_are_two(tmp_path: Path) -> None:
    base = models.build("half_hf_offline")
    codes = next(i for i in base.graph.initializer if i.name == "half.codes")
    array = numpy_helper.to_array(codes).copy()
    array[:, ::2] *= np.float16(1.025)
    codes.CopyFrom(numpy_helper.from_array(array, codes.name))
    assert [layer.scope for layer in _compile(base, tmp_path).packed] == ["row"]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        {"files": {"a\0b": ""}},
        {"files": {"a" * 5000: ""}},
        {"files": {"\ud800": ""}},
        {"N": "x"},
        {"N": 10**400},
    ],
    ids=["deep", "nul", "long", "surrogate", "type", "huge"],
)
def test_a_manifest_that_lies_is_refused(text: str | dict[str, object], tmp_path: Path) -> None:
    _compile(models.build("dynamo"), tmp_path)
    file = tmp_path / "out" / "bitcc.json"
    if isinstance(text, dict):
        content = json.loads(file.read_text(encoding="utf-8"))
        content["layers"][0].update({k: v for k, v in text.items() if k == "N"})
        text = json.dumps(content | {k: v for k, v in text.items() if k == "files"})
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BundleError):
        bundle.read(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")


def test_an_output_that_is_a_sequence_is_compared(tmp_path: Path) -> None:
    model = models.build("dynamo")
    model.graph.node.append(helper.make_node("SequenceConstruct", ["y", "y"], ["s"]))
    model.graph.output.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))
    assert _compile(model, tmp_path).manifest.verify["status"] == "passed"


LOOP = """
  <ir_version: 10, opset_import: ["" : 18]>
  outer (float[3, 100] x) => (float[3, 100] y) {
    y = Loop <body = step (int64 i, bool go, float[3, 100] state) => (bool again, float[3, 100] next)
      { again = Identity (go) next = MatMul (state, weight) }> (trips, , x)
  }
"""


def test_a_layer_in_a_loop_runs_in_the_library(tmp_path: Path) -> None:
    codes, scale = models.quantized(models.latent(shape=(100, 100)))
    known = {"weight": codes * np.float32(scale), "trips": np.int64(3)}
    built = _compile(models.parse(LOOP, known), tmp_path)
    assert len(built.packed) == 1
    assert built.manifest.verify["status"] == "passed"
    verify.check_weights(built)


def test_strings_of_more_than_a_kilobyte_stay_in_the_model(tmp_path: Path) -> None:
    model = models.build("dynamo")
    words = ["word" * 10] * 100
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [100], words))
    built = _compile(model, tmp_path)
    (kept,) = (t for t in onnx.load(built.model).graph.initializer if t.name == "words")
    assert [word.decode() for word in kept.string_data] == words


def _with_data_in_a_constant(folder: Path, location: str = "side.bin") -> onnx.ModelProto:
    """The latent weight is the value of a Constant, in another file."""
    model = models.build("dynamo")
    (weight,) = (t for t in model.graph.initializer if t.name == "head.weight")
    (folder / "side.bin").write_bytes(numpy_helper.to_array(weight).tobytes())
    inside = onnx.TensorProto(name="inside", data_type=weight.data_type, dims=weight.dims)
    inside.data_location = TensorProto.EXTERNAL
    inside.external_data.add(key="location", value=location)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["head.weight"], value=inside))
    model.graph.initializer.remove(weight)
    return model


def test_data_of_a_constant_in_another_file_comes_along(tmp_path: Path) -> None:
    built = _compile(_with_data_in_a_constant(tmp_path), tmp_path)
    (tmp_path / "side.bin").unlink()
    node = onnx.load(built.model).graph.node[0]
    array = numpy_helper.to_array(node.attribute[0].t)
    np.testing.assert_array_equal(array, models.arrays()["head.weight"])


def test_data_of_a_constant_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    with pytest.raises(ModelError, match="is outside of the model's folder"):
        _compile(_with_data_in_a_constant(folder, "../side.bin"), folder)


@pytest.mark.parametrize("dims", [[2**63 - 1], [2**31, 2**31], [-1, -4], [5]])
@pytest.mark.parametrize("place", ["initializer", "attribute", "function", "side file"])
def test_a_tensor_whose_shape_lies_is_refused(dims: list[int], place: str, tmp_path: Path) -> None:
    """Inferring shapes from it would take hours, and all memory."""
    model = models.build("dynamo")
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "lie")
    tensor.dims[:] = dims
    constant = helper.make_node("Constant", [], ["lie"], value=tensor)
    if place == "attribute":
        model.graph.node.insert(0, constant)
    elif place == "function":
        opsets = [helper.make_opsetid("", 18)]
        model.functions.append(helper.make_function("local", "f", [], ["lie"], [constant], opsets))
    else:
        model.graph.initializer.append(tensor)
    if place == "side file":
        (tmp_path / "side.bin").write_bytes(tensor.raw_data)
        external_data_helper.set_external_data(model.graph.initializer[-1], "side.bin", 0, 16)
        model.graph.initializer[-1].ClearField("raw_data")
    with pytest.raises(ModelError, match=r"`lie`"):
        _compile(model, tmp_path)


@pytest.mark.parametrize("element", [TensorProto.UNDEFINED, 99])
def test_a_tensor_without_a_type_is_refused(element: int, tmp_path: Path) -> None:
    model = models.build("dynamo")
    model.graph.initializer.add(name="odd", dims=[1], data_type=element, raw_data=bytes(4))
    with pytest.raises(ModelError, match=rf"the tensor `odd` has no type that is known \({element}\)"):
        _compile(model, tmp_path)


@pytest.mark.parametrize("inside", [False, True])
def test_two_initializers_of_one_name_are_refused(inside: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Readers do not agree on which one it is."""
    twice = [numpy_helper.from_array(np.full(4, i, np.float32), "twice") for i in range(2)]
    model = models.build("dynamo")
    if inside:
        branch = _branch("then", helper.make_node("Identity", ["twice"], ["z"]))
        branch.initializer.extend(twice)
        other = _branch("else", helper.make_node("Constant", [], ["w"], value_floats=[1.0]))
        node = helper.make_node("If", ["yes"], ["y2"], then_branch=branch, else_branch=other)
        model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.bool_), "yes"))
        model.graph.node.append(node)
    else:
        model.graph.initializer.extend(twice)
    with pytest.raises(ModelError, match="more than one initializer `twice`"):
        _compile(model, tmp_path)


def test_training_information_is_not_lost_in_silence(tmp_path: Path) -> None:
    model = models.build("dynamo")
    model.training_info.add().algorithm.name = "step"
    with pytest.raises(ModelError, match="it holds training information"):
        _compile(model, tmp_path)


@pytest.mark.parametrize("text", ["MatMul", "fc.weight", "weights.bin", "tokens", "linear", "main_graph"])
def test_a_text_that_is_not_utf8_is_named(tmp_path: Path, text: str) -> None:
    """Of a node, a tensor and its file, a dimension, a value and the graph: readers take bytes or do not."""
    path = tmp_path / "m.onnx"
    onnx.save(
        models.build("dynamo"), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    data = path.read_bytes()
    path.write_bytes(data.replace(text.encode(), b"\xe9" + text[1:].encode()))
    with pytest.raises(ModelError, match=rf"is not UTF-8: b'\\xe9{text[1:]}"):
        bitcc.compile(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_with_a_text_that_is_not_utf8_is_damaged(tmp_path: Path) -> None:
    built = _compile(models.build("dynamo"), tmp_path)
    built.model.write_bytes(built.model.read_bytes().replace(b"model.onnx.data", b"model.\xe9nnx.data"))
    reseal(built.path)
    with pytest.raises(ModelError, match="the `value` of a StringStringEntryProto is not UTF-8"):
        verify.verify_bundle(built.path, None, None)
