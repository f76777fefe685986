"""Tiny networks of BitNetForCausalLM, as each of transformers' kinds of checkpoint.

One was trained on one sentence: it says that, and says another if a layer, a position or the cache is wrong.
One is random, as transformers makes it: it says little, but float noise is all that may differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BitNetConfig, BitNetForCausalLM, BitNetQuantConfig
from transformers.integrations.bitnet import (
    AutoBitLinear,
    BitLinear,
    pack_weights,
    replace_with_bitnet_linear,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

TEXT = b"A linear layer with ternary weights needs no multiplication: it adds inputs and subtracts others."
KINDS = {
    "packed": BitNetQuantConfig(linear_class="bitlinear"),
    "offline": BitNetQuantConfig(linear_class="autobitlinear", quantization_mode="offline"),
    "online": BitNetQuantConfig(linear_class="autobitlinear", quantization_mode="online"),
}
VOCABULARY = 256
CLEAR = 1e-4  # codes; of ten thousand activations one has more float noise than this
_STEPS = 120
_HEAD = "lm_head"


def trained() -> BitNetForCausalLM:
    """A network with online quantizers, trained on the sentence; a token is a byte."""
    model = _network(seed=0, width=128)
    tokens = torch.tensor([list(TEXT)])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    return model.eval()


def random(seed: int) -> BitNetForCausalLM:
    """A network with online quantizers as it is before training.

    It is narrow: the fewer activations, the more often all of a text are clear of rounding boundaries.
    """
    return _network(seed, width=32).eval()


def _network(seed: int, width: int) -> BitNetForCausalLM:
    torch.manual_seed(seed)
    config = BitNetConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=True,
    )
    model = BitNetForCausalLM(config)
    dense = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != _HEAD}
    replace_with_bitnet_linear(model, [_HEAD], KINDS["online"])
    for name, layer in dense.items():
        model.get_submodule(name).weight = layer.weight
    return model


def save(model: BitNetForCausalLM, kind: str, folder: Path) -> None:
    """A checkpoint of a network with online quantizers for ``from_pretrained``."""
    model.config.quantization_config = KINDS[kind].to_dict()
    model.config.save_pretrained(folder)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(_HEAD)}
    if kind != "online":
        for name in bit_linears(model):
            tensors |= _packed(name, tensors[f"{name}.weight"], inverse=kind == "packed")
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def _packed(name: str, weight: Tensor, *, inverse: bool) -> dict[str, Tensor]:
    """Codes and scale as checkpoints hold them: BitLinear divides by the scale, AutoBitLinear multiplies."""
    scale = weight.abs().mean().reshape(1)
    codes = pack_weights((weight / scale).round().clamp(-1, 1))
    return {f"{name}.weight": codes, f"{name}.weight_scale": 1 / scale if inverse else scale}


def bit_linears(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that bitcc has to find, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, (AutoBitLinear, BitLinear))}


def load(folder: Path) -> BitNetForCausalLM:
    """The network of a checkpoint, in float32."""
    return BitNetForCausalLM.from_pretrained(folder, dtype=torch.float32)


def greedy(model: BitNetForCausalLM, prompts: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """What transformers generates after prompts [batch, sequence]: tokens [batch, count]."""
    generated = model.generate(torch.from_numpy(prompts), max_new_tokens=count, do_sample=False)
    return generated[:, prompts.shape[1] :].numpy()


def logits_and_margins(
    model: BitNetForCausalLM, tokens: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits [batch, sequence, vocabulary], and how near each token came to other codes [batch, sequence].

    The margin of a token is the least distance of its scaled activations to a rounding boundary, in codes.
    Float noise decides a code that is nearer than the noise is large.
    """
    margins = torch.full(tokens.shape, torch.inf)

    def watch(_layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        x = arguments[0]
        scaled = x * (127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5))
        distance = (scaled - scaled.floor() - 0.5).abs().amin(dim=-1)
        torch.minimum(margins, distance, out=margins)

    hooks = [layer.register_forward_pre_hook(watch) for layer in bit_linears(model).values()]
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(tokens)).logits
    for hook in hooks:
        hook.remove()
    return logits.numpy(), margins.numpy()
