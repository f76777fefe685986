"""Many sessions and threads at once give the bits of one session with one thread."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitcc.ops import ActScope, Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnxruntime as ort

pytestmark = [pytest.mark.stress, pytest.mark.parametrize("library", ["built"], indirect=True)]
SECONDS = float(os.environ.get("BITCC_STRESS_SECONDS", "15"))
SESSIONS, THREADS, WORKERS = 4, 2, 4
TOKENS = (1, 2, 5, 7, 16, 33, 65, 130)
RUNS_OF_A_SESSION = 25  # before another takes its place


@pytest.fixture
def chain(layer: Callable[..., Any], ternary: Callable[..., Any]) -> onnx.ModelProto:
    """Both ops, one layer after the other; some are one task, others several."""
    return chained([
        layer(N=1030, K=517, norm=Norm.RMS),
        layer(N=300, K=1030, act_scope=ActScope.TENSOR, per_row=False),
        ternary(N=600, K=300, group_size=128),
        layer(N=48, K=600),
    ])  # fmt: skip


def chained(layers: Sequence[Any]) -> onnx.ModelProto:
    """The output of each layer is an output of the model and the input of the next one."""
    names = [f"y{i}" for i in range(len(layers))]
    nodes, constants = [], []
    for i, (part, x, y) in enumerate(zip(layers, ["X", *names], names, strict=False)):
        inputs = {f"{name}{i}": array for name, array in part.inputs.items()}
        constants += [numpy_helper.from_array(array, name) for name, array in inputs.items()]
        kind = type(part.op).__name__
        nodes.append(helper.make_node(kind, [x, *inputs], [y], domain="bitcc", **part.op.attributes()))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["tokens", layers[0].op.K])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bitcc", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_sessions_that_come_and_go_in_many_threads_compute_the_same(
    session: Callable[..., ort.InferenceSession], chain: onnx.ModelProto, rng: np.random.Generator
) -> None:
    """Each worker has a session that it makes anew now and then, and runs those of the others too."""
    inputs = [rng.normal(0, 2, (tokens, 517)).astype(np.float32) for tokens in TOKENS]
    alone = session(chain, threads=1)
    expected = [alone.run(None, {"X": x}) for x in inputs]
    sessions = [session(chain, threads=THREADS) for _ in range(SESSIONS)]
    end = monotonic() + SECONDS

    def work(worker: int) -> int:
        for run in itertools.count():
            if monotonic() > end:
                return run
            if run % RUNS_OF_A_SESSION == worker:
                sessions[worker % SESSIONS] = session(chain, threads=THREADS)
            which = (run + worker) % len(TOKENS)
            used = sessions[(run // 3 + worker) % SESSIONS]
            for got, want in zip(used.run(None, {"X": inputs[which]}), expected[which], strict=True):
                assert np.array_equal(got.view(np.uint32), want.view(np.uint32)), f"{TOKENS[which]} tokens"
        raise AssertionError

    with ThreadPoolExecutor(WORKERS) as pool:
        runs = list(pool.map(work, range(WORKERS)))
    assert min(runs) > RUNS_OF_A_SESSION  # all of them were made anew at least once
