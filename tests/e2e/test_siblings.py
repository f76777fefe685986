"""Merged layers through the whole product: the bundle, its report, and every variant of the library."""

from __future__ import annotations

import models
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from models import siblings
from models.siblings import ROWS, WIDTH, shared

import bitcc
from bitcc import bundle, html_report, report, runtime_ops, verify
from bitcc.targets import x86_64

MERGED = "q_proj+k_proj+v_proj"
MODEL = siblings.model(shared(), dims="tokens")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    folder = tmp_path_factory.mktemp("siblings")
    onnx.save(MODEL, folder / "model.onnx")
    return bitcc.compile(folder / "model.onnx", folder / "bundle")


def test_each_layer_is_told_of_and_what_it_is_merged_with(compiled: bundle.Bundle) -> None:
    layers = bundle.read(compiled.path).packed
    assert [(layer.name, layer.N, layer.merged) for layer in layers] == [
        (f"{name}_proj", rows, MERGED) for name, rows in ROWS.items()
    ]
    assert compiled.manifest.verify["library_equals_body"] is True
    lines = [str(item) for item in report.layers_table(layers).renderables]
    assert f"merged {MERGED}: one op for layers that quantise the same activations" in lines
    assert html_report.page("model.onnx", layers).count(MERGED) == len(ROWS)


def test_the_stacked_weights_are_stored_once_and_are_right(compiled: bundle.Bundle) -> None:

    verify.check_weights(compiled)
    model = onnx.load(compiled.model)
    packed = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.UINT8]
    assert [list(t.dims) for t in packed] == [[sum(ROWS.values()) // 16, WIDTH // 16, 64]]


@pytest.mark.parametrize("tokens", [1, 2, 17])
@pytest.mark.parametrize("isa", [variant.name for variant in x86_64.TARGET.variants])
def test_every_variant_gives_the_bits_of_separate_ops(
    compiled: bundle.Bundle, monkeypatch: pytest.MonkeyPatch, isa: str, tokens: int
) -> None:
    library = compiled.library("x86-64")
    monkeypatch.setenv("BITCC_ISA", isa)
    if runtime_ops.library_info(library).selected is None:
        pytest.skip(f"{isa} cannot run on this CPU")
    apart, _ = models.pack(MODEL, merge=False)
    x = models.tokens(tokens, k=WIDTH)
    runs = []
    for source in (str(compiled.model), apart.SerializeToString()):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 2
        options.register_custom_ops_library(str(library))
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        runs.append(session.run(None, {"x": x}))
    for got, want in zip(*runs, strict=True):
        np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
