"""Where the time of a session goes, from onnxruntime's own profiler."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bitcc import temporary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnxruntime as ort

    from bitcc.verify.inputs import Feeds

_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class NodeTime:
    """One node.

    Attributes:
        name: Its name, after onnxruntime's own rewriting.
        op: Its op type.
        seconds: The median over the runs.
    """

    name: str
    op: str
    seconds: float


@dataclass(frozen=True)
class OpTime:
    """All nodes of one op type.

    Attributes:
        op: The op type.
        nodes: How many there are.
        seconds: Their sum for one run.
    """

    op: str
    nodes: int
    seconds: float


def node_times(
    make_session: Callable[[ort.SessionOptions], ort.InferenceSession],
    options: ort.SessionOptions,
    feeds: Feeds,
    runs: int,
) -> tuple[NodeTime, ...]:
    """Profile a model; the first run, in which memory is allocated, does not count.

    Args:
        make_session: Opens the model.
        options: What to open it with; changed.
        feeds: The inputs.
        runs: How often to run.
    """
    with temporary.folder() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        session = make_session(options)
        for _ in range(1 + runs):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return parse(events)


def parse(events: Iterable[dict[str, Any]]) -> tuple[NodeTime, ...]:
    """The nodes in a profile, in the order in which they ran; a node in a loop counts once a turn."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            key = name.removesuffix(_SUFFIX), str(event["args"]["op_name"])
            found[key].append(event["dur"] * 1e-6)
    return tuple(NodeTime(*key, median(times[1:] or times)) for key, times in found.items())


def by_op(nodes: Iterable[NodeTime]) -> tuple[OpTime, ...]:
    """The nodes by op type, slowest first."""
    found: dict[str, list[float]] = defaultdict(list)
    for node in nodes:
        found[node.op].append(node.seconds)
    times = [OpTime(op, len(seconds), sum(seconds)) for op, seconds in found.items()]
    return tuple(sorted(times, key=lambda time: -time.seconds))
