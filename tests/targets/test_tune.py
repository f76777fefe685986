"""The search for tiles: against a machine that is made up, and against this one."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from bitcc import runtime_ops, targets
from bitcc.errors import TargetError
from bitcc.targets import _machine, _measure, _tune
from bitcc.targets._base import Shim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bitcc.targets import Tiles

pytestmark = pytest.mark.usefixtures("cache")
TARGET = targets.get("x86-64")
SCALAR = TARGET.variants[-1]
SHIM = Shim(runtime_ops.tuner_sources(), runtime_ops.include_dir(), "1")


def prefetches(tiles: Tiles) -> Iterator[Tiles]:
    for distance in (0, 512, 1024):
        yield replace(tiles, gemv=replace(tiles.gemv, prefetch=distance))


def few(tiles: Tiles) -> Iterator[Tiles]:
    yield replace(tiles, gemm_few=tuple(replace(walk, tiles=2) for walk in tiles.gemm_few))


@dataclass(frozen=True)
class Machine:
    """In place of a workshop and what it makes: each candidate takes the time that is given."""

    times: Callable[[int, int, bool], float]

    @contextmanager
    def open(self, *_: Any) -> Iterator[Machine]:
        yield self

    def seconds(self, candidate: int, case: Any, at_least: float) -> float:
        assert at_least > 0
        return self.times(candidate, case.tokens, case.streamed)

    def tune(self, **axes: Any) -> tuple[Tiles, list[targets.Change]]:
        workshop: Any = self
        return _tune.tune(SCALAR, workshop, 0, axes=axes)


def test_the_fastest_candidate_is_found_and_confirmed() -> None:
    # candidates: the default and two more; then the default and what was found
    tiles, changes = Machine(lambda candidate, *_: [1.0, 0.5, 0.8][candidate]).tune(gemv=(prefetches,))
    assert tiles == replace(SCALAR.tiles, gemv=targets.Walk(1, prefetch=512))
    (change,) = changes
    assert (change.kernel, change.ratio) == ("gemv", 2.0)
    assert change.before == "1 tiles, unroll 1, prefetch 0"
    assert change.after == "1 tiles, unroll 1, prefetch 512"


def test_the_walk_through_t5_is_searched_where_there_is_one() -> None:
    (variant,) = (v for v in TARGET.variants if v.name == "avx512vbmi")
    machine: Any = Machine(lambda candidate, *_: [1.0, 0.9, 0.5, 0.8, 0.8, 0.8, 0.8][candidate])
    tiles, changes = _tune.tune(variant, machine, 0, axes={"gemv_t5": _tune.AXES["gemv_t5"][:1]})
    assert tiles.gemv_t5.tiles == 2
    assert [change.kernel for change in changes] == ["gemv_t5"]
    assert _tune.tune(SCALAR, machine, 0, axes={"gemv_t5": _tune.AXES["gemv_t5"]}) == (SCALAR.tiles, [])


def test_the_walks_of_pairs_are_searched_where_there_are_some() -> None:
    (variant,) = (v for v in TARGET.variants if v.name == "avx512zen")
    machine: Any = Machine(lambda candidate, tokens, _: 0.5 if candidate == 1 and tokens == 3 else 1.0)
    axes = {"gemm_pairs": _tune.AXES["gemm_pairs"][:1]}
    tiles, changes = _tune.tune(variant, machine, 0, axes=axes)
    assert [walk.tiles for walk in tiles.gemm_pairs[:3]] == [4, 1, 4]
    assert tiles.gemm_few == variant.tiles.gemm_few
    assert len(changes) == len(variant.tiles.gemm_pairs)
    assert _tune.tune(SCALAR, machine, 0, axes=axes) == (SCALAR.tiles, [])


def test_what_is_faster_by_less_than_the_margin_is_not_taken() -> None:
    tiles, (change,) = Machine(lambda candidate, *_: 1.0 - candidate / 100).tune(gemv=(prefetches,))
    assert tiles == SCALAR.tiles
    assert (change.after, change.ratio) == (change.before, 1.0)


def test_what_is_faster_by_luck_is_not_taken() -> None:
    """The default is disturbed in most rounds; undisturbed it is as fast."""
    calls = itertools.count()

    def time(candidate: int, *_: Any) -> float:
        return 2.0 if candidate == 0 and next(calls) % 3 else 1.0

    assert Machine(time).tune(gemv=(prefetches,))[0] == SCALAR.tiles


def test_weights_from_a_cache_and_from_memory_count_the_same() -> None:
    # twice as fast from a cache, three times as slow from memory
    machine = Machine(lambda candidate, _, streamed: [1.0, 3.0 if streamed else 0.5, 1.0][candidate])
    assert machine.tune(gemv=(prefetches,))[0] == SCALAR.tiles


def test_each_number_of_tokens_is_chosen_for_itself() -> None:
    machine = Machine(lambda candidate, tokens, _: 0.5 if candidate == 1 and tokens == 3 else 1.0)
    tiles, changes = machine.tune(gemm_few=(few,))
    assert [walk.tiles for walk in tiles.gemm_few] == [1, 2, 1]
    assert [(c.kernel, c.ratio) for c in changes] == [("gemm_few 2", 1), ("gemm_few 3", 2), ("gemm_few 4", 1)]


@pytest.mark.parametrize(
    ("verdict", "problem"),
    [(1, r"kernel `gemv` with .* computes wrong numbers"), (2, "the machine cannot run ISA `scalar`")],
)
def test_nothing_is_timed_that_fails_its_test(
    monkeypatch: pytest.MonkeyPatch, verdict: int, problem: str
) -> None:
    monkeypatch.setattr(_measure, "write_object", lambda _target, _variant, path, *_: path.touch())
    monkeypatch.setattr(_measure, "link", lambda *_, **__: None)
    workshop = _measure.Workshop(TARGET, SCALAR, SHIM, lambda _: {"check": lambda _: verdict})
    with pytest.raises(TargetError, match=problem):
        _tune.tune(SCALAR, workshop, 0, axes={"gemv": (prefetches,)})


def test_a_cache_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "build")

    monkeypatch.setenv("BITCC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(_measure, "write_object", refuse)
    workshop = _measure.Workshop(TARGET, SCALAR, SHIM, lambda _: {})
    with pytest.raises(
        TargetError, match=f"the cache folder `{tmp_path}` cannot be written: Read-only"
    ) as told:
        _tune.tune(SCALAR, workshop, 0, axes={"gemv": (prefetches,)})
    assert "BITCC_CACHE_DIR" in told.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["libraries"]


def test_a_machine_without_the_memory_is_an_error() -> None:
    bench = _measure.Bench(0, {"measure": lambda *_: -1.0})
    with pytest.raises(TargetError, match="not enough memory"):
        bench.seconds(0, _measure.Case(1, streamed=True), 0.1)


@pytest.mark.parametrize("target", targets.TARGETS.values(), ids=lambda target: target.name)
def test_every_candidate_can_be_in_a_file(target: targets.Target, tmp_path: Path) -> None:
    for variant in target.variants:
        options = [option for axes in _tune.AXES.values() for axis in axes for option in axis(variant.tiles)]
        named = {f"candidate {i}": tiles for i, tiles in enumerate(options)}
        written = targets.TileFile(target.name, "", named)
        (tmp_path / "t.json").write_text(written.to_json(), encoding="utf-8")
        assert targets.read_tiles(tmp_path / "t.json") == written


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(TargetError, match="target `x86-64` has no ISA `sse9`"):
        targets.tune_variant(
            TARGET, "sse9", sources=SHIM.sources, include=SHIM.include, version="1", seconds=0
        )


def check_times(remote: targets.Remote | None) -> None:
    """Candidates of a family pass their test there, and every kernel takes some time."""
    loaded: list[Any] = []
    with _machine.connect(remote) as load:

        def keep(path: Path) -> Any:
            loaded.append(load(path))
            return loaded[-1]

        workshop = _measure.Workshop(TARGET, SCALAR, SHIM, keep)
        tiles, (change,) = _tune.tune(SCALAR, workshop, 0, axes={"gemv": (prefetches,)})
        assert change.kernel == "gemv"
        assert tiles in [SCALAR.tiles, *prefetches(SCALAR.tiles)]
        for number, family in enumerate(_measure.FAMILIES):
            seconds = float(loaded[-1]["measure"](0, number, 2, 1, 1e-4))
            assert 0 < seconds < 10 if family in dict(SCALAR.kernels) else seconds < 0
        assert float(loaded[-1]["measure"](99, 0, 1, 0, 1e-4)) < 0
        assert int(loaded[-1]["check"](99)) == 1


def test_this_machine_times_kernels() -> None:
    check_times(None)


@contextmanager
def rpc_server() -> Iterator[targets.Remote]:
    pytest.importorskip("cloudpickle", reason="the RPC server of TVM needs cloudpickle")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--port-end", str(port + 1)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    try:
        if not any("bind to" in line for line in process.stderr):
            pytest.skip("the RPC server of TVM does not start here")
        yield targets.Remote("127.0.0.1", port)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its children hold the pipe, too
        process.wait()
        process.stderr.close()


def listens(remote: targets.Remote) -> bool:
    """The server says that it is bound a moment before it listens."""
    for _ in range(1000):
        with suppress(TargetError), _machine.connect(remote):
            return True
    return False


def test_another_machine_times_kernels() -> None:
    with rpc_server() as remote:
        assert listens(remote)
        check_times(remote)


def test_a_machine_that_is_not_there_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        remote = targets.Remote("127.0.0.1", unused.getsockname()[1])
        with (
            pytest.raises(TargetError, match=r"RPC server 127\.0\.0\.1:\d+: cannot be reached"),
            _machine.connect(remote),
        ):
            pass


def test_a_connection_that_breaks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine, "_session", lambda _: None)
    with (
        pytest.raises(TargetError, match="RPC server board:9190: the connection broke: gone"),
        _machine.connect(targets.Remote("board", 9190)),
    ):
        raise RuntimeError("gone")
