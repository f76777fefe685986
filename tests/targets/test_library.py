"""What a target promises, and what its library shows to the outside."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bitcc import targets
from bitcc.errors import TargetError
from bitcc.targets import Tiles, Walk, _link
from bitcc.targets._base import Shim
from bitcc.targets._dot import Dot
from bitcc.targets._matmul import Gemm, GemmFew, Gemv, GemvT5

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitcc.targets import Target

every_target = pytest.mark.parametrize("target", targets.TARGETS.values(), ids=lambda t: t.name)


@every_target
def test_a_target_is_found_by_its_name(target: Target) -> None:
    assert targets.get(target.name) is target


def test_an_unknown_target_is_refused_with_the_known_names() -> None:
    with pytest.raises(TargetError, match="there is no target `z80`") as raised:
        targets.get("z80")
    assert raised.value.hint.startswith("choose one of `x86-64`, ")
    assert all(f"`{name}`" in raised.value.hint for name in targets.TARGETS)


@every_target
def test_a_target_is_that_of_its_machines(target: Target) -> None:
    for machine in target.machines:
        assert target in targets.of_machine(target.system, machine)
    assert targets.of_machine(target.system, "pdp11") == ()


def test_the_first_target_of_a_machine_needs_no_gpu() -> None:
    assert [t.name for t in targets.of_machine("linux", "x86_64")] == ["x86-64", "cuda"]
    for target in targets.TARGETS.values():
        assert not any(targets.of_machine(target.system, machine)[0].gpus for machine in target.machines)


@every_target
def test_the_last_variant_runs_everywhere_and_the_others_do_not(target: Target) -> None:
    assert [v.features == "0" for v in target.variants] == [False] * (len(target.variants) - 1) + [True]


@every_target
def test_variants_have_names_of_their_own(target: Target) -> None:
    assert len({variant.name for variant in target.variants}) == len(target.variants)


def test_a_walk_that_leaves_vectors_out_is_refused() -> None:
    dot = Dot(2, (), step=lambda *_: None, total=lambda *_: ())
    for walk in (Walk(1, unroll=4), Walk(1, chains=4)):
        for family in (Gemv(dot), GemmFew(dot), Gemm(dot)):
            with pytest.raises(ValueError, match="does not divide 4 vectors"):
                family(None, None, Tiles(walk, (walk,), walk, 1, walk))  # type: ignore[arg-type]


def test_a_walk_through_t5_of_more_than_a_vector_in_a_step_is_refused() -> None:
    dot, walk = Dot(1, (), step=lambda *_: None, total=lambda *_: ()), Walk(1, unroll=2)
    for chained in (walk, replace(walk, chains=3)):
        with pytest.raises(ValueError, match="takes more than one vector of t5"):
            GemvT5(dot, dot)(None, None, Tiles(walk, (walk,), walk, 1, walk, gemv_t5=chained))  # type: ignore[arg-type]


def test_importing_targets_does_not_import_tvm() -> None:
    check = "import sys, bitcc.targets; sys.exit('tvm' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_kernels_are_not_exported(build: Callable[..., Path]) -> None:
    library = ctypes.CDLL(str(build()))
    assert hasattr(library, "stub_variants")
    for variant in targets.get("x86-64").variants:
        for family, _ in variant.kernels:
            assert not hasattr(library, f"bitcc_{family}_{variant.name}")
    assert not hasattr(library, "__truncsfhf2")


def test_the_library_needs_an_old_libc_and_nothing_else(build: Callable[..., Path]) -> None:
    content = build().read_bytes()
    versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", content)
    assert versions
    assert all((int(major), int(minor)) <= (2, 17) for major, minor in versions)
    needed = set(re.findall(rb"\0([\w+.-]+\.so[.\d]*)(?=\0)", content))
    assert needed <= {b"libbitcc_ops.so", b"libc.so.6"}


def test_the_library_is_small_and_names_no_path(build: Callable[..., Path], cache: Path) -> None:
    content = build().read_bytes()
    assert len(content) < 1_000_000
    for path in (cache, Path.home(), Path(targets.__file__).parent, Path(sys.prefix)):
        assert str(path).encode() not in content


def test_the_table_is_that_of_the_variants(kernels: Any) -> None:
    row, variant = kernels.row, kernels.variant
    assert row.few_tokens == variant.tiles.few_tokens
    assert row.gemm_tokens == variant.tiles.gemm_tokens
    assert row.float_tiles == variant.tiles.gemv_float.tiles
    assert row.gemm_unit == variant.tiles.gemm_unit
    assert row.panel_tiles == variant.tiles.panel_tiles
    assert row.panel_vectors == variant.tiles.panel_vectors
    assert row.few_blocks == variant.tiles.few_blocks
    assert (row.cpu == 0) == (variant.features == "0")


def test_the_portable_object_is_linked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The linker takes the first copy of a conversion that all have, and the others are for better CPUs."""
    command: list[str] = []
    monkeypatch.setattr(_link, "_run", lambda asked, *_: command.extend(asked))
    target = targets.get("x86-64")
    objects = [tmp_path / f"{variant.name}.o" for variant in target.variants]
    for path in objects:
        path.touch()
    (tmp_path / "empty").mkdir()
    shim = Shim((), tmp_path / "empty", "1")
    _link.link(target, objects, shim, tmp_path, zig_cache=tmp_path)
    linked = [name for name in command if name.endswith(".o")]
    assert linked == [path.name for path in reversed(objects)]
    assert target.variants[-1].features == "0"


@pytest.mark.usefixtures("cache")
def test_a_c_error_is_shown(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int wrong(void) { return missing; }\n")
    target = targets.get("x86-64")
    small = replace(target, variants=target.variants[-1:])  # the error does not depend on the kernels
    with pytest.raises(TargetError, match=r"`libbitcc_ops\.so` cannot be compiled") as raised:
        targets.build_library(small, sources=[source], include=tmp_path, version="1")
    assert raised.value.where == "target `x86-64`"
    assert "src/wrong.c" in raised.value.hint
    assert "error" in raised.value.hint
