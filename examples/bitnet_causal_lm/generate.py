"""Continue a text with a compiled BitNetForCausalLM, without PyTorch.

    python examples/bitnet_causal_lm/generate.py bundle --tokenizer CHECKPOINT --prompt "Once upon a time"

The tokenizer is transformers'; the cache of keys and values goes from each run to the next as numpy arrays.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

import bitcc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnxruntime as ort
    from numpy.typing import NDArray


def empty_cache(session: ort.InferenceSession, batch: int = 1) -> dict[str, NDArray[np.float32]]:
    """Keys and values of no tokens, by the name of the input."""
    past = [value for value in session.get_inputs() if value.name.startswith("past.")]
    return {v.name: np.zeros((batch, v.shape[1], 0, v.shape[3]), np.float32) for v in past}


def greedy(session: ort.InferenceSession, prompt: Sequence[int], count: int) -> Iterator[int]:
    """The likeliest token after a prompt, then the likeliest after that, and so on."""
    cache = empty_cache(session)
    new = list(prompt)
    for _ in range(count):
        logits, *present = session.run(None, {"input_ids": np.array([new], np.int64), **cache})
        cache = dict(zip(cache, present, strict=True))
        new = [int(logits[0, -1].argmax())]
        yield new[0]


def main() -> None:
    """Print the text while it is written."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("bundle", help="folder that `bitcc compile` made")
    arguments.add_argument("--tokenizer", required=True, help="checkpoint whose tokenizer it is")
    arguments.add_argument("--prompt", required=True)
    arguments.add_argument("--tokens", type=int, default=64, help="how many to write (default: %(default)s)")
    options = arguments.parse_args()

    from transformers import AutoTokenizer  # noqa: PLC0415 - the functions above do without

    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    prompt = tokenizer(options.prompt)["input_ids"]
    for token in greedy(bitcc.session(options.bundle), prompt, options.tokens):
        print(tokenizer.decode(token), end="", flush=True)
    print()


if __name__ == "__main__":
    main()
