"""Where timed threads run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from bitcc.bench import cores, models

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system places threads")
_AFFINITIES = "session.intra_op_thread_affinities"


@pytest.fixture
def four_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CPUs 0, 1, 3 and 4, of which the first two are one core, and the last one's core is not known."""
    for cpu, siblings in enumerate(["0-1", "0-1", "2-3", "2-3"]):
        (tmp_path / str(cpu)).write_text(siblings)
    monkeypatch.setattr(cores, "_SIBLINGS", f"{tmp_path}/{{}}")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 3, 4})


@pytest.mark.usefixtures("four_cpus")
def test_of_the_cpus_of_a_core_one_is_taken() -> None:
    assert cores.find() == [0, 3, 4]


@pytest.mark.usefixtures("four_cpus")
def test_workers_of_a_session_have_the_cores_after_the_first() -> None:
    options = models.session_options(3)
    assert options.get_session_config_entry(_AFFINITIES) == "4;5"


@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize("threads", [1, 4])
def test_alone_or_with_fewer_cores_than_threads_the_system_places_them(threads: int) -> None:
    with pytest.raises(RuntimeError, match=_AFFINITIES):
        models.session_options(threads).get_session_config_entry(_AFFINITIES)


def test_the_caller_is_on_the_first_core_meanwhile() -> None:
    before, [core, *_] = os.sched_getaffinity(0), cores.find()
    with cores.first():
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before
