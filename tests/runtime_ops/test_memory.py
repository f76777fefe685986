"""The shim and the kernels under valgrind and the sanitizers, driven by a host in C (``host/host.h``).

`make test-sanitizers` runs these; a tool that is not installed is a skip with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bitcc import runtime_ops
from bitcc.targets import x86_64
from bitcc.targets._codegen import write_object
from bitcc.targets._link import variant_lines

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.sanitizers
HERE = Path(__file__).parent
FLAGS = ("-std=c11", "-g", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Werror")
ASAN = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
TSAN = ("-fsanitize=thread",)
VALGRIND = ("valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "--track-origins=no")
ISAS = pytest.mark.parametrize("isa", [variant.name for variant in x86_64.TARGET.variants])
WITH_PAIRS = {variant.name for variant in x86_64.TARGET.variants if variant.kernels.has_pairs}
MODES = pytest.mark.parametrize("mode", ["numbers", "refusals", "faults"])


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the kernels of every variant."""
    folder = tmp_path_factory.mktemp("objects")
    for variant in x86_64.TARGET.variants:
        write_object(x86_64.TARGET, variant, folder / f"{variant.name}.o", lambda _: None)
    (folder / "variants.inc").write_text(variant_lines(x86_64.TARGET.variants), encoding="ascii")
    return folder


@pytest.fixture(scope="session")
def host(objects: Path) -> Callable[..., Path]:
    """Builds the host with a sanitizer, or without."""

    def build(*flags: str) -> Path:
        out = objects / "-".join(["host", *(flag.partition("=")[2] for flag in flags)])
        if not out.exists():
            if not compiles(*flags, out=objects / "nothing"):
                pytest.skip(f"the C compiler cannot link {' '.join(flags)}")
            paths = [*(HERE / "host").glob("*.c"), *runtime_ops.sources(), *in_order(objects)]
            includes = [f"-I{runtime_ops.include_dir()}", f"-I{objects}", '-DBITCC_VERSION="1.2.3"']
            more = ["-Wl,--wrap=malloc,--wrap=calloc", "-lm", "-lpthread", "-o", str(out)]
            subprocess.run(["cc", *FLAGS, *flags, *includes, *map(str, paths), *more], check=True)
        return out

    return build


def compiles(*flags: str, out: Path) -> bool:
    command = ["cc", *flags, "-xc", "-", "-o", str(out)]
    done = subprocess.run(command, input="int main(void) { return 0; }", text=True, check=False)
    return done.returncode == 0


def in_order(objects: Path) -> list[Path]:
    """The portable variant first, as the library is linked."""
    return [objects / f"{variant.name}.o" for variant in reversed(x86_64.TARGET.variants)]


def run(*command: str | Path, isa: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"BITCC_ISA": isa}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "cannot run on this CPU" in done.stderr:
        pytest.skip(f"this CPU has no {isa}")
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer and this kernel's address space layout do not work together")
    return done


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a host printed that found nothing wrong."""
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_like_scalar(host: Callable[..., Path], got: str, mode: str, isa: str) -> None:
    """Check that the portable variant says the same; with products of pairs there is more to fail."""
    expected = said(run(host(), mode, isa="scalar"))
    if mode == "faults" and isa in WITH_PAIRS:
        assert int(got.removesuffix(" faults\n")) > int(expected.removesuffix(" faults\n"))
    else:
        assert got == expected


@MODES
@ISAS
def test_address_and_undefined_behaviour_sanitizers_find_nothing(
    host: Callable[..., Path], mode: str, isa: str
) -> None:
    check_like_scalar(host, said(run(host(*ASAN), mode, isa=isa)), mode, isa)


@ISAS
def test_the_thread_sanitizer_finds_nothing(host: Callable[..., Path], isa: str) -> None:
    said(run(host(*TSAN), "threads", isa=isa))


@MODES
@pytest.mark.parametrize("isa", ["avx2", "scalar"])
def test_valgrind_finds_nothing(host: Callable[..., Path], mode: str, isa: str) -> None:
    need_valgrind()
    check_like_scalar(host, said(run(*VALGRIND, host(), mode, isa=isa)), mode, isa)


def need_valgrind() -> None:
    """Or skip: valgrind knows no AVX-512."""
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")


def test_the_tools_see_what_is_wrong(host: Callable[..., Path]) -> None:
    assert "heap-buffer-overflow" in run(host(*ASAN), "overrun", isa="scalar").stderr


def test_the_thread_sanitizer_sees_a_race(host: Callable[..., Path]) -> None:
    assert "data race" in run(host(*TSAN), "race", isa="scalar").stderr


def test_valgrind_sees_an_overrun(host: Callable[..., Path]) -> None:
    need_valgrind()
    assert "Invalid read" in run(*VALGRIND, host(), "overrun", isa="scalar").stderr
