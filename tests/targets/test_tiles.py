"""Tile sizes in a file: read as they were written, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcc import targets
from bitcc.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TARGET = targets.get("x86-64")
SCALAR = TARGET.variants[-1]
TUNED = replace(SCALAR.tiles, gemv=targets.Walk(2, prefetch=512), gemm_tokens=3, panel_vectors=16)
WALKS = st.builds(targets.Walk, st.integers(1, 8), st.sampled_from([1, 2, 4]), st.integers(0, 1 << 16))
T5_CHAINED = st.builds(targets.Walk, st.integers(1, 8), chains=st.integers(1, 4))
CHAINED = st.builds(
    targets.Walk, st.integers(1, 8), prefetch=st.integers(0, 1 << 16), chains=st.sampled_from([1, 2, 4])
)


def write(path: Path, **tiles: targets.Tiles) -> Path:
    path.write_text(targets.TileFile("x86-64", "some machine", tiles).to_json(), encoding="utf-8")
    return path


@settings(max_examples=25)
@given(
    gemv=WALKS | CHAINED,
    gemv_t5=T5_CHAINED,
    few=st.lists(WALKS, min_size=2, max_size=8),
    units=st.integers(1, 4),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    gemv: targets.Walk,
    gemv_t5: targets.Walk,
    few: list[targets.Walk],
    units: int,
) -> None:
    tiles = replace(SCALAR.tiles, gemv=gemv, gemv_t5=gemv_t5, gemm_few=tuple(few), panel_vectors=4 * units)
    path = write(tmp_path_factory.mktemp("tiles") / "t.json", scalar=tiles)
    assert targets.read_tiles(path) == targets.TileFile("x86-64", "some machine", {"scalar": tiles})


@pytest.mark.parametrize("target", targets.TARGETS.values(), ids=lambda target: target.name)
def test_what_every_variant_has_can_be_in_a_file(target: targets.Target, tmp_path: Path) -> None:
    tiles = {variant.name: variant.tiles for variant in target.variants}
    written = targets.TileFile(target.name, "", tiles)
    (tmp_path / "t.json").write_text(written.to_json(), encoding="utf-8")
    assert targets.read_tiles(tmp_path / "t.json").apply(target) == target


def test_only_the_variants_in_the_file_change(tmp_path: Path) -> None:
    changed = targets.read_tiles(write(tmp_path / "t.json", scalar=TUNED)).apply(TARGET)
    assert changed.variants[:-1] == TARGET.variants[:-1]
    assert changed.variants[-1] == replace(SCALAR, tiles=TUNED)


def edit(*path: str | int, value: Any) -> Callable[[Any], None]:
    """Sets what is at a place in the file; None removes it."""

    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = value
        if value is None:
            del data[path[-1]]

    return change


SIZES = ("tiles", "scalar")
WALK = asdict(SCALAR.tiles.gemv)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (edit("format", value=2), "is not a file of tiles in format 1"),
        (edit("more", value=1), "`more` is unknown; known are format, machine, target, tiles"),
        (edit("target", value=None), "`target` is missing"),
        (edit("tiles", value=[1]), "'list' object has no attribute 'items'"),
        (edit(*SIZES, value=3), "3 is not an object"),
        (edit(*SIZES, "gemv", value=None), "`gemv` is missing"),
        (
            edit(*SIZES, "gemv", "width", value=1),
            "`width` is unknown; known are chains, prefetch, tiles, unroll",
        ),
        (edit(*SIZES, "gemv", "tiles", value=0), "`tiles` is 0, known are 1 to 64"),
        (edit(*SIZES, "gemv", "tiles", value=True), "`tiles` is True, known are 1 to 64"),
        (edit(*SIZES, "gemv", "tiles", value=1.0), "`tiles` is 1.0, known are 1 to 64"),
        (edit(*SIZES, "gemv", "unroll", value=3), "`unroll` times `chains` is 3, which does not divide 4"),
        (edit(*SIZES, "gemv", "chains", value=3), "`unroll` times `chains` is 3, which does not divide 4"),
        (edit(*SIZES, "gemv", "chains", value=0), "`chains` is 0, known are 1 to 4"),
        (edit(*SIZES, "gemm_few", value=[]), "`gemm_few` is [], expected 2 to 63 walks"),
        (edit(*SIZES, "gemm_pairs", value=None), "`gemm_pairs` is missing"),
        (edit(*SIZES, "gemm_pairs", value={}), "`gemm_pairs` is {}, expected none or 2 to 3 walks"),
        (edit(*SIZES, "gemm_pairs", value=[WALK]), "expected none or 2 to 3 walks, as many as of `gemm_few`"),
        (edit(*SIZES, "gemm_pairs", value=[WALK] * 4), "expected none or 2 to 3 walks"),
        (
            edit(*SIZES, "gemm", "tiles", value=60),
            "`tiles` is 60 for 4 tokens in 1 chains, more than any CPU",
        ),
        (edit(*SIZES, "panel_vectors", value=6), "or `panel_vectors` not one of 4"),
        (edit(*SIZES, "gemm_tokens", value=65), "`gemm_tokens` is 65, known are 1 to 64"),
    ],
)
def test_a_file_with_something_else_is_refused(
    tmp_path: Path, change: Callable[[Any], None], problem: str
) -> None:
    path = write(tmp_path / "t.json", scalar=SCALAR.tiles)
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(TargetError) as raised:
        targets.read_tiles(path)
    assert str(raised.value).startswith(f"tiles `{path}`: ")
    assert problem in str(raised.value)


@pytest.mark.parametrize(("content", "problem"), [("{", "is not JSON"), ("[]", "is not a file of tiles")])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "t.json").write_text(content, encoding="utf-8")
    with pytest.raises(TargetError, match=problem):
        targets.read_tiles(tmp_path / "t.json")
    with pytest.raises(TargetError, match="cannot be read: No such file"):
        targets.read_tiles(tmp_path / "absent.json")


def test_tiles_of_another_target_or_variant_are_refused() -> None:
    with pytest.raises(TargetError, match="the tiles are for target `arm64`, not for `x86-64`"):
        targets.TileFile("arm64", "", {}).apply(TARGET)
    with pytest.raises(TargetError, match="the tiles are for ISA `sse9`; target `x86-64` has `amx`"):
        targets.TileFile("x86-64", "", {"sse9": SCALAR.tiles}).apply(TARGET)
    with pytest.raises(TargetError, match="`gemm_unit` of scalar is 2, expected 1"):
        targets.TileFile("x86-64", "", {"scalar": replace(SCALAR.tiles, gemm_unit=2)}).apply(TARGET)
    zen = next(variant for variant in TARGET.variants if variant.kernels.has_pairs)
    tiles = {zen.name: replace(zen.tiles, gemm_pairs=())}
    with pytest.raises(TargetError, match=f"0 walks of `gemm_pairs` for {zen.name}, which needs some"):
        targets.TileFile("x86-64", "", tiles).apply(TARGET)
    tiles = {"scalar": replace(SCALAR.tiles, gemm_pairs=zen.tiles.gemm_pairs)}
    with pytest.raises(TargetError, match="11 walks of `gemm_pairs` for scalar, which needs none"):
        targets.TileFile("x86-64", "", tiles).apply(TARGET)


def test_tiles_that_an_instruction_set_cannot_have_are_refused(build: Callable[..., Path]) -> None:
    avx2 = replace(TARGET, variants=tuple(v for v in TARGET.variants if v.name == "avx2"))
    tiles = replace(avx2.variants[0].tiles, gemv=targets.Walk(1, unroll=2))
    with pytest.raises(TargetError, match=r"ISA avx2 cannot have these tiles: .* does not divide 4 vectors"):
        build(targets.TileFile("x86-64", "", {"avx2": tiles}).apply(avx2))
