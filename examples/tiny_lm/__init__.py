"""A byte-level BitNet b1.58 language model: corpus, network, training and ONNX export."""
