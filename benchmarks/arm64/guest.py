"""Runs on the emulated machine: layers in onnxruntime and in ggml, with marks for the plugin that counts.

    guest.py FOLDER LIBRARY

FOLDER/cases.json lists what to run. Each case is two runs, of which the second has one layer more: that layer
is what is counted. Writes what each case computes to FOLDER/CASE.npy, and prints errors by case.
"""

import ctypes
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

Runs = Sequence[Callable[[], Any]]

GGML_BYTES = 4  # more than any of its types has for a weight or an activation


def main(folder: Path, library: str) -> None:
    """Run all cases."""
    errors = {}
    for case in json.loads((folder / "cases.json").read_text()):
        x = np.load(folder / f"x{case['tokens']}.npy")
        try:
            if case["type"]:
                runs, result = in_ggml(folder, case["type"], x)
            else:
                runs, result = in_onnxruntime([folder / model for model in case["models"]], library, x)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs in the report
            errors[case["name"]] = str(error)
            continue
        for run in runs:
            run()  # what is only done once
            mark()
            run()
            mark()
        np.save(folder / f"{case['name']}.npy", result())
    sys.stdout.write(json.dumps(errors))


def mark() -> None:
    """Have the plugin write its count."""
    os.getpriority(os.PRIO_PROCESS, 0)


def in_onnxruntime(models: list[Path], library: str, x: np.ndarray) -> tuple[Runs, Callable[[], np.ndarray]]:
    """Two models, and what the last one computes."""
    bound = [bind(model, library, x) for model in models]
    runs = [partial(session.run_with_iobinding, binding) for session, binding in bound]
    return runs, lambda: bound[-1][1].copy_outputs_to_cpu()[0]


def bind(model: Path, library: str, x: np.ndarray) -> tuple[ort.InferenceSession, ort.IOBinding]:
    """A session of a model, and its inputs and outputs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.register_custom_ops_library(library)
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for wanted in session.get_inputs():
        binding.bind_ortvalue_input(wanted.name, ort.OrtValue.ortvalue_from_numpy(x))
    for made in session.get_outputs():
        y = ort.OrtValue.ortvalue_from_shape_and_type(made.shape, np.float32, "cpu")
        binding.bind_ortvalue_output(made.name, y)
    return session, binding


def in_ggml(folder: Path, kind: str, x: np.ndarray) -> tuple[Runs, Callable[[], np.ndarray]]:
    """No token and all of them, and the result."""
    ggml = ctypes.CDLL(str(folder / "ggml.so"))
    weights = np.load(folder / "weights.npy")
    (n, k), tokens = weights.shape, len(x)
    rows, q, y = (
        np.empty(GGML_BYTES * n * k, np.uint8),
        np.empty(GGML_BYTES * k),
        np.empty((tokens, n), np.float32),
    )
    getattr(ggml, f"pack_{kind}")(n, k, pointer(weights), pointer(rows))
    multiply = getattr(ggml, f"multiply_{kind}")
    arrays = [pointer(array) for array in (rows, x, q, y)]
    return [partial(multiply, n, k, m, *arrays) for m in (0, tokens)], lambda: y


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """Where its numbers are; keeps them alive."""
    return array.ctypes.data_as(ctypes.c_void_p)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
