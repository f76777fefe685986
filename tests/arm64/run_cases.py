"""Runs on the emulated machine: models of one node, with every kernel variant that is asked for.

    run_cases.py LIBRARY FOLDER ISA...

FOLDER has NAME.onnx and NAME.npz for each case. Writes NAME.ISA.npz, and prints JSON: what the
library says about itself and, for each ISA, an empty text or why onnxruntime refused the library. The ISA
`-` is the library's own choice.
"""

import ctypes
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort


def main(library: str, folder: Path, isas: list[str]) -> None:
    """Run all cases with each ISA."""
    refusals = {}
    for isa in isas:
        os.environ["BITCC_ISA"] = isa.removeprefix("-")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 4
        try:
            options.register_custom_ops_library(library)
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
            refusals[isa] = str(error)
            continue
        refusals[isa] = ""
        for model in sorted(folder.glob("*.onnx")):
            session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            with np.load(model.with_suffix(".npz")) as feeds:
                (y,) = session.run(None, dict(feeds))
            np.savez(folder / f"{model.stem}.{isa}.npz", y=y)
    os.environ["BITCC_ISA"] = ""
    about = ctypes.create_string_buffer(4096)
    ctypes.CDLL(library).bitcc_library_info(about, ctypes.c_size_t(len(about)))
    sys.stdout.write(json.dumps({"refusals": refusals, "library": json.loads(about.value)}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
