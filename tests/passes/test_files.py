"""Weights in files: read when they are needed, and let go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import models
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bitcc import passes
from bitcc.facts import PACKED

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]


def test_weights_can_be_stored_elsewhere(tmp_path: Path) -> None:
    stored: list[int] = []

    def store(array: Array) -> ir.TensorProtocol:
        stored.append(array.nbytes)
        file = tmp_path / f"{len(stored)}.bin"
        file.write_bytes(array.tobytes())
        return ir.ExternalTensor(
            file.name,
            0,
            array.nbytes,
            ir.DataType.UINT8,
            shape=ir.Shape(array.shape),
            name="",
            base_dir=tmp_path,
        )

    graph = ir.from_proto(models.build("dynamo"))
    passes.pipeline(passes.PackBitLinearPass(store=store))(graph)
    (node,) = (n for n in graph.graph if n.domain == "bitcc")
    weight = node.inputs[1]
    assert weight is not None
    assert isinstance(weight.const_value, ir.ExternalTensor)
    assert stored == [weight.const_value.nbytes]


def saved(model: onnx.ModelProto, folder: Path) -> ir.Model:
    """The model with its weights in a file beside it."""
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="model.data")
    return ir.load(path)


def maps_of(file: Path) -> int:
    with open("/proc/self/maps", encoding="utf-8") as maps:  # noqa: PTH123 - not a file of ours
        return sum(str(file) in line for line in maps)


@pytest.mark.parametrize("spelling", ["dynamo", "dynamo_folded_bias", "hf_packed", "divide_row_scale"])
def test_external_data_is_not_mapped_any_more_afterwards(spelling: str, tmp_path: Path) -> None:
    model = saved(models.build(spelling), tmp_path)
    passes.PIPELINE(model)
    assert model.meta[passes.FACTS][0].status == PACKED
    assert maps_of(tmp_path / "model.data") == 0


def test_the_data_of_a_constant_node_may_be_in_a_file(tmp_path: Path) -> None:
    model = models.build("dynamo_folded_bias")
    (tensor,) = (t for t in model.graph.initializer if t.name == "fc.dense")
    model.graph.initializer.remove(tensor)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["fc.dense"], value=tensor))
    onnx.save(
        model,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        size_threshold=0,
        location="model.data",
        convert_attribute=True,
    )
    graph = ir.load(tmp_path / "model.onnx")
    passes.PIPELINE(graph)
    assert graph.meta[passes.FACTS][0].status == PACKED
    assert maps_of(tmp_path / "model.data") == 0


def test_external_data_gives_the_same_model(tmp_path: Path) -> None:
    model = models.build("dynamo")
    packed, _ = models.pack(model)
    graph = saved(model, tmp_path)
    passes.PIPELINE(graph)
    (got,), (want,) = models.bit_linears(ir.to_proto(graph)), models.bit_linears(packed)
    assert got == want
    for name in got.input[1:]:
        np.testing.assert_array_equal(
            graph.graph.initializers[name].const_value.numpy(), models.initializers(packed)[name]
        )
