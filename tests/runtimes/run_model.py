"""Run a model in whatever onnxruntime this Python has: run_model.py MODEL FEEDS.npz OUTPUT.npz [LIBRARY]."""

import sys

import numpy as np
import onnxruntime as ort

model, feeds, output, *library = sys.argv[1:]
options = ort.SessionOptions()
for path in library:
    options.register_custom_ops_library(path)
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
with np.load(feeds) as data:
    np.savez(output, *session.run(None, dict(data)))
