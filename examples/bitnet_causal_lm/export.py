"""Export transformers' BitNetForCausalLM to ONNX, with the cache of keys and values.

    python examples/bitnet_causal_lm/export.py CHECKPOINT -o model.onnx
    bitcc compile model.onnx -o bundle

CHECKPOINT is what `from_pretrained` reads: packed, offline or online weights. Needs torch, transformers,
accelerate and onnxscript.

inputs:   input_ids (batch, sequence); of each layer N past.N.key and past.N.value (batch, heads, past, width)
outputs:  logits (batch, sequence, vocabulary); present.N.key and present.N.value, with the new tokens behind

All texts of a batch have one length: there is no mask for padding.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim
from transformers import BitNetForCausalLM, DynamicCache


class WithCache(nn.Module):
    """The model, with its cache as tensors: ONNX has no other kind of input."""

    def __init__(self, model: BitNetForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Logits, then key and value of each layer."""
        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        out = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True)
        return out.logits, *(t for layer in out.past_key_values.layers for t in (layer.keys, layer.values))


def export(model: BitNetForCausalLM, path: Path) -> None:
    """Write the model; its weights go to a second file, ``path`` with ``.data`` behind."""
    config = model.config
    head_width = config.hidden_size // config.num_attention_heads
    names = [f"{layer}.{kind}" for layer in range(config.num_hidden_layers) for kind in ("key", "value")]
    # Sizes above 1 in the example keep the exporter from treating an axis as constant.
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    past = [torch.zeros(2, config.num_key_value_heads, 5, head_width) for _ in names]
    batch, sequence, cached = Dim("batch"), Dim("sequence"), Dim("past")
    program = torch.onnx.export(
        WithCache(model).eval(),
        (tokens, *past),
        dynamo=True,
        input_names=["input_ids", *(f"past.{name}" for name in names)],
        output_names=["logits", *(f"present.{name}" for name in names)],
        dynamic_shapes=({0: batch, 1: sequence}, tuple({0: batch, 2: cached} for _ in names)),
        verbose=False,
    )
    if program is None:
        msg = "torch.onnx.export returned no program"
        raise RuntimeError(msg)
    program.save(path, external_data=True)


def main() -> None:
    """Load, export, write."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("checkpoint", help="folder, or name on the hub")
    arguments.add_argument("-o", "--out", type=Path, default=Path("model.onnx"), help="file to write")
    options = arguments.parse_args()
    export(BitNetForCausalLM.from_pretrained(options.checkpoint, dtype=torch.float32), options.out)


if __name__ == "__main__":
    main()
