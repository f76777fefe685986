"""What the op asks of the driver, and what becomes of each call that fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from emulation.cuda import ALL_OPS, CPU_OPS, IMAGES, LauncherError, expected, inputs_of
from onnx import TensorProto, helper, numpy_helper

from bitcc import runtime_ops
from bitcc.ops import ActScope, BitLinear

if TYPE_CHECKING:
    from pathlib import Path

OP = BitLinear(K=70, N=20, act_scope=ActScope.TENSOR)
RNG = np.random.default_rng(1)
INPUTS = inputs_of(OP, RNG)
X = RNG.normal(0, 1, (3, OP.K)).astype(np.float32)
UNKNOWN = r"bitcc::BitLinear `a node`: cu\w+: unknown error \(CUDA error 999\)"
SELF_TEST = 40  # calls before it; it repeats the same ones nine times


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("has_pools", [1, 0])
def test_each_call_of_the_driver_may_fail(launcher: Any, has_pools: int, *, constant: bool) -> None:
    driver = launcher.driver
    driver.set(has_pools=has_pools)
    node = launcher.create(OP, INPUTS, constant=constant)
    want = node.run(X)
    said: list[str] = []
    for at in range(1, 100):
        try:
            got = node.run(X, fail_at=at)
        except LauncherError as error:
            said.append(str(error))
            continue
        np.testing.assert_array_equal(got, want)
        break
    assert len(said) > 7
    assert all(re.fullmatch(UNKNOWN, words) for words in said)
    np.testing.assert_array_equal(node.run(X), want)
    node.close()


def test_each_call_of_the_driver_may_fail_when_a_node_is_made(launcher: Any) -> None:
    driver = launcher.driver
    before = driver.get("calls")
    launcher.create(OP, INPUTS).close()
    calls = driver.get("calls") - before
    said: list[str] = []
    for at in (*range(1, SELF_TEST), *range(SELF_TEST, calls, 13), *range(calls - 8, calls + 1)):
        driver.set(until_fault=at)
        try:
            node = launcher.create(OP, INPUTS)
        except LauncherError as error:
            said.append(str(error))
        else:
            node.close()  # it is here that the last ones fail
        assert driver.get("until_fault") <= 0
        driver.set(until_fault=-1)
        assert driver.is_clean()
    assert len(said) > SELF_TEST
    assert all(re.fullmatch(UNKNOWN, words) for words in said)


@pytest.mark.parametrize("constant", [True, False])
def test_each_call_of_onnxruntime_and_each_allocation_may_fail(launcher: Any, *, constant: bool) -> None:
    keeper = launcher.create(OP, INPUTS)
    want = keeper.run(X)
    for at in range(1, 400):
        launcher.host.host_fail_at(at)
        try:
            node = launcher.create(OP, INPUTS, constant=constant)
        except LauncherError:
            assert launcher.host.host_has_failed()
            continue
        try:
            got = node.run(X)
        except LauncherError:
            assert launcher.host.host_has_failed()
        else:
            np.testing.assert_array_equal(got, want)
            if not launcher.host.host_has_failed():
                break
        finally:
            node.close()
    else:
        pytest.fail("there is no end")
    keeper.close()
    assert at > 50


@pytest.mark.parametrize("family", ["absmax", "quantize", "gemv", "gemm_few", "gemm", "gemm_many"])
@pytest.mark.parametrize("element", ["float", "float16", "bfloat16"])
def test_a_kernel_that_is_wrong_is_found_before_it_is_used(launcher: Any, family: str, element: str) -> None:
    with launcher.driver.broken(f"bitcc_{family}_{element}"), pytest.raises(LauncherError) as error:
        launcher.create(OP, INPUTS)
    assert f"_{element}, or a kernel before it, computes wrong numbers on this GPU" in str(error.value)
    assert "BITCC_CUDA=off" in str(error.value)


@pytest.mark.parametrize(
    ("capability", "image"),
    [(75, "sm_75"), (80, "sm_80"), (86, "sm_86"), (89, "sm_86"), (90, "compute_90"), (120, "compute_90")],
)
def test_the_best_image_for_a_gpu_is_loaded(launcher: Any, capability: int, image: str) -> None:
    launcher.driver.set(capability=capability)
    launcher.create(OP, INPUTS).close()
    assert launcher.driver.loaded == image


def test_a_driver_that_counts_no_processors_is_an_error(launcher: Any) -> None:
    launcher.driver.set(processors=0)
    with pytest.raises(LauncherError, match="the driver says that the GPU has 0 SMs"):
        launcher.create(OP, INPUTS)


@pytest.mark.parametrize("capability", [70, 72])
def test_a_gpu_without_an_image_is_named(launcher: Any, capability: int) -> None:
    launcher.driver.set(capability=capability)
    with pytest.raises(LauncherError) as error:
        launcher.create(OP, INPUTS)
    assert str(error.value) == (
        "bitcc::BitLinear `a node`: this library has no code for a GPU of paper 0, which is "
        f"sm_{capability}; it has: sm_75,compute_90,sm_86,sm_80"
    )


def test_kernels_are_loaded_once_for_each_context(launcher: Any) -> None:
    driver = launcher.driver
    first = launcher.create(OP, INPUTS)
    before = driver.get("calls")
    second = launcher.create(OP, INPUTS)
    assert driver.get("calls") - before < 10
    driver.library.fake_make_current(1)
    third = launcher.create(OP, INPUTS)
    assert driver.get("calls") - before > 100
    for node in (first, second, third, first):
        np.testing.assert_array_equal(node.run(X), first.run(X))
    driver.library.fake_make_current(0)
    for node in (second, first, third):
        node.close()


def test_without_a_context_there_is_no_node(launcher: Any) -> None:
    launcher.driver.library.fake_make_current(-1)
    with pytest.raises(LauncherError, match="no CUDA context is current"):
        launcher.create(OP, INPUTS)


def test_what_the_cpu_op_refuses_is_refused_in_the_same_words(launcher: Any) -> None:
    wrong: list[dict[str, Any]] = [{"attributes": {"act_scale": 9}}, {"attributes": {"K": 170}}]
    for how in wrong:
        said = []
        for cpu in (False, True):
            with pytest.raises(LauncherError) as error:
                launcher.create(OP, INPUTS, cpu=cpu, **how)
            said.append(str(error.value))
        assert said[0] == said[1]
    node = launcher.create(OP, INPUTS)
    with pytest.raises(LauncherError, match="the last dimension of X is 69, expected K = 70"):
        node.run(X[:, :69])
    node.close()


@pytest.mark.parametrize("constant", [True, False])
def test_without_memory_pools_results_are_the_same(launcher: Any, *, constant: bool) -> None:
    launcher.driver.set(has_pools=0)
    node = launcher.create(OP, INPUTS, constant=constant)
    np.testing.assert_array_equal(node.run(X), expected(OP, INPUTS, X))
    node.close()


def test_a_session_without_a_gpu_runs_the_op_of_the_cpu(launcher: Any) -> None:
    nodes = [helper.make_node("BitLinear", ["X", *INPUTS], ["Y"], domain="bitcc", **OP.attributes())]
    x = [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["M", OP.K])]
    y = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(array, name) for name, array in INPUTS.items()]
    graph = helper.make_graph(nodes, "g", x, y, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bitcc", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    runtime_ops.register(options, launcher.path)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"X": X})[0], expected(OP, INPUTS, X))
    assert not launcher.driver.take_launches()


def test_ops_for_both_providers_are_registered_and_weights_stay_with_the_host(launcher: Any) -> None:
    providers = [launcher.host.host_provider(i) for i in range(ALL_OPS)]
    assert providers == [None] * CPU_OPS + [b"CUDAExecutionProvider"] * 3
    on_the_host = -2
    assert [launcher.host.host_memory_type(6, i) for i in range(5)] == [0] + [on_the_host] * 4


def test_the_environment_leaves_the_gpu_out(launcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITCC_CUDA", "off")
    assert launcher.register() == CPU_OPS
    monkeypatch.setenv("BITCC_CUDA", "of")
    with pytest.raises(LauncherError, match="BITCC_CUDA=of; known is: off"):
        launcher.register()
    monkeypatch.delenv("BITCC_CUDA")
    assert launcher.register() == ALL_OPS


def test_the_library_says_which_gpus_it_has_code_for(launcher: Any) -> None:
    assert runtime_ops.library_info(launcher.path).gpus == tuple(IMAGES)


def test_the_fake_driver_sees_what_is_wrong(launcher: Any) -> None:
    driver = launcher.driver
    node = launcher.create(OP, INPUTS)
    with pytest.raises(AssertionError, match="CUDA error 700"):
        node.run(X, on_host=True)
    assert driver.get("violations") == 2  # both kernels read X, or what came of it
    driver.set(violations=0)
    node.close()
    leaked = driver.upload(X)
    assert not driver.is_clean()
    driver.free(leaked)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "libcuda.so.1, which comes with NVIDIA's driver, cannot be loaded: "),
        (
            "int cuInit(unsigned f) { return (int)f; }",
            "libcuda.so.1 has no cuGetErrorString: NVIDIA's driver is",
        ),
    ],
)
def test_without_a_driver_the_error_says_so(
    launcher: Any, tmp_path: Path, source: str | None, words: str
) -> None:
    if source is not None:
        command = ["cc", "-xc", "-", "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1")]
        subprocess.run(command, input=source, text=True, check=True)
    paths = {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(launcher.path)],
        env=os.environ | paths, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if source is None and not done.stdout.startswith("bitcc"):
        pytest.skip("this machine has a driver")
    assert done.stdout.startswith(f"bitcc::BitLinear `a node`: {words}"), done.stderr


ALONE = """
import sys
from pathlib import Path
import numpy as np
from emulation import cuda
from bitcc.ops import BitLinear
launcher = cuda.Launcher(Path(sys.argv[1]))
assert launcher.register() == cuda.ALL_OPS
op = BitLinear(K=70, N=20)
inputs = cuda.inputs_of(op, np.random.default_rng(1))
launcher.create(op, inputs, cpu=True)
try:
    launcher.create(op, inputs)
except cuda.LauncherError as error:
    print(error)
"""
