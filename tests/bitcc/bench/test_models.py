"""The models of many copies: each copy computes its own, from memory of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bitcc.bench import models
from bitcc.bench.contenders import BITCC, PEERS, T5, Contender, random_layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

every_contender = pytest.mark.parametrize("contender", [BITCC, T5, *PEERS], ids=lambda c: c.name)


def open_stack(
    stack: models.Stack, contender: Contender, library: Path, x: NDArray[np.float32]
) -> models.Runner:
    return models.Runner(stack.path, x, 1, library if contender.needs_library else None)


@every_contender
@pytest.mark.parametrize("n", [1, 16, 17, 64])
def test_every_copy_has_its_own_result(contender: Contender, n: int, tmp_path: Path, library: Path) -> None:
    layer = random_layer(n, 128, 2)
    size = sum(array.nbytes for array in contender.tensors(layer).values())
    stack = models.write(tmp_path / "stack", contender, layer, 3 * size)
    assert stack.copies == 3
    runner = open_stack(stack, contender, library, layer.x)
    runner()
    wants = layer.references(3)
    assert not np.array_equal(wants[1], wants[2])
    for got, want in zip(runner.outputs(), wants, strict=True):
        assert np.max(np.abs(got - want)) <= contender.tolerance * np.max(np.abs(np.array(wants)))


RESIDENT = """
import resource, sys
from pathlib import Path
from bitcc.bench import models
from bitcc.bench.contenders import BITCC, PEERS, T5, random_layer

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

name, folder, library = sys.argv[1:]
contender = next(c for c in (BITCC, T5, *PEERS) if c.name == name)
layer = random_layer(1024, 1024, 1)
stack = models.write(Path(folder), contender, layer, 64 << 20)
before = resident()
runner = models.Runner(stack.path, layer.x, 1, Path(library) if contender.needs_library else None)
runner()
print((resident() - before) / (stack.copies * stack.weight_bytes))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
@every_contender
def test_what_is_streamed_is_in_memory_as_often_as_there_are_copies(
    contender: Contender, tmp_path: Path, library: Path
) -> None:
    # in a process of its own: what earlier tests freed must not serve this one
    command = [sys.executable, "-c", RESIDENT, contender.name, tmp_path / "stack", library]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert float(done.stdout) > 0.8
