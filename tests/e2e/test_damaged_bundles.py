"""Bundles that are not as they were written, or not any more: each a clear error."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime as ort
import pytest
from e2e.command import Run, refused, reseal

import bitcc
from bitcc import bundle, runtime
from bitcc.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_flipped_bit_in_the_weights_is_found(bitcc_command: Run, broken: Path) -> None:
    data = bytearray((broken / "model.onnx.data").read_bytes())
    data[len(data) // 2] ^= 0x40
    (broken / "model.onnx.data").write_bytes(data)
    refused(bitcc_command("verify", broken), 1, "`model.onnx.data` is not what bitcc wrote", "hint: ")


def test_a_changed_library_is_not_loaded(broken: Path) -> None:
    with (broken / "libbitcc_ops.so").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError, match="is not what bitcc wrote"):
        bitcc.session(broken)


def test_a_bundle_that_goes_once_it_is_read_is_told_of(broken: Path) -> None:
    read = bundle.read(broken)
    shutil.rmtree(broken)
    for used in (bitcc.session, bundle.Bundle.check_digests):
        with pytest.raises(BundleError, match=r"`\S+` cannot be read: No such file") as raised:
            used(read)
        assert raised.value.hint


@pytest.mark.parametrize("is_read", [False, True])
def test_a_bundle_that_is_replaced_while_it_is_opened_is_refused(
    broken: Path, monkeypatch: pytest.MonkeyPatch, *, is_read: bool
) -> None:
    """Else the model could be that of the old one, and its data that of the new one."""
    opened = runtime.open_session

    def replaced(built: bundle.Bundle, options: ort.SessionOptions, providers: Any) -> ort.InferenceSession:
        with bundle.writing(broken, force=True) as staging:
            shutil.copytree(broken, staging, dirs_exist_ok=True)
        return opened(built, options, providers)

    asked = bundle.read(broken) if is_read else broken
    bitcc.session(asked)
    monkeypatch.setattr(runtime, "open_session", replaced)
    with pytest.raises(BundleError, match="replaced while it was opened") as raised:
        bitcc.session(asked)
    assert raised.value.hint == "open it again"
    monkeypatch.undo()
    bitcc.session(asked)


def test_options_that_have_the_library_are_told_of(example_bundle: Path) -> None:
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(example_bundle / "libbitcc_ops.so"))
    with pytest.raises(BundleError, match="Domain already set") as raised:
        bitcc.session(example_bundle, options)
    assert "options without the library" in raised.value.hint


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "libbitcc_ops.so", "bitcc.json"])
def test_a_missing_file_of_a_bundle_is_named(broken: Path, name: str) -> None:
    (broken / name).unlink()
    with pytest.raises(BundleError, match=name):
        bitcc.session(broken)


@pytest.mark.parametrize("name", ["../outside", "folder/../../outside", "link", "folder/outside", "folder"])
def test_a_file_outside_of_a_bundle_is_none_of_it(broken: Path, name: str) -> None:
    (broken.parent / "outside").write_bytes((broken / "libbitcc_ops.so").read_bytes())
    (broken / "link").symlink_to("../outside")
    (broken / "folder").symlink_to("..", target_is_directory=True)
    manifest = json.loads((broken / "bitcc.json").read_text())
    for changed in (
        {"files": {**manifest["files"], name: manifest["targets"][0]["sha256"]}},
        {"targets": [{**manifest["targets"][0], "library": name}]},
    ):
        (broken / "bitcc.json").write_text(json.dumps(manifest | changed))
        with pytest.raises(BundleError, match=f"`{name}` is missing"):
            bundle.read(broken)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": 0},
        {"files": ["model.onnx"]},
        {"files": {}},
        {"targets": [{"name": "x86-64"}]},
        {"layers": [{"name": "only"}]},
        {"verify": 3},
    ],
)
def test_a_manifest_that_is_not_understood_is_refused(broken: Path, change: dict[str, object]) -> None:
    manifest = json.loads((broken / "bitcc.json").read_text())
    (broken / "bitcc.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(BundleError):
        bundle.read(broken)


def test_data_that_the_manifest_does_not_know_is_refused_by_verify(bitcc_command: Run, broken: Path) -> None:
    manifest = json.loads((broken / "bitcc.json").read_text())
    del manifest["files"]["model.onnx.data"]
    (broken / "bitcc.json").write_text(json.dumps(manifest))
    refused(bitcc_command("verify", broken), 1, "`bitcc.json` does not know `model.onnx.data`")


def test_weights_with_an_unknown_code_are_refused_by_verify(bitcc_command: Run, broken: Path) -> None:
    data = bytearray((broken / "model.onnx.data").read_bytes())
    model = onnx.load(broken / "model.onnx", load_external_data=False)
    weight = next(t for t in model.graph.initializer if t.name.endswith(".weight") and len(t.dims) == 3)
    offset = next(int(entry.value) for entry in weight.external_data if entry.key == "offset")
    data[offset] = 0xFF
    (broken / "model.onnx.data").write_bytes(data)
    reseal(broken)
    refused(bitcc_command("verify", broken), 1, "node `", "the code 3")
