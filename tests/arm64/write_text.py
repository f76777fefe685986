"""Runs on the emulated machine: the text that a language model of the examples writes.

write_text.py MODEL LIBRARY TOKENS
"""

import sys

import onnxruntime as ort
from generate import generate

options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.register_custom_ops_library(sys.argv[2])
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
sys.stdout.buffer.write(generate(session, b"Raised when ", int(sys.argv[3]))[0])
