"""Text from the tiny language model, with onnxruntime and numpy alone."""

import time

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

REMEMBERED_BYTES = 4


def generate(session: ort.InferenceSession, prompt: bytes, tokens: int) -> tuple[bytes, float]:
    """Continue a text, one byte at a time, with the cache of keys and values.

    Greedy, except that a word may not begin as it did after the same 4 bytes before: a tiny model
    would end in a loop otherwise. The outcome depends on the logits alone, nothing is random.

    Args:
        session: the model, from its file or compiled.
        prompt: at least one byte.
        tokens: how many bytes to generate.

    Returns:
        The new bytes, and the seconds spent on them after the prompt and the first byte.
    """
    past = _empty_cache(session)
    text, new = bytearray(prompt), bytes(prompt)
    started = time.perf_counter()
    for position in range(tokens):
        feeds = {"tokens": np.frombuffer(new, np.uint8).astype(np.int64)[None], "past": past}
        logits, past = session.run(["logits", "present"], feeds)
        if position == 0:  # the prompt is read at once: not the speed of decoding
            started = time.perf_counter()
        text.append(_choose(logits[0, -1], text))
        new = bytes(text[-1:])
    return bytes(text[len(prompt) :]), time.perf_counter() - started


def _empty_cache(session: ort.InferenceSession) -> NDArray[np.float32]:
    """(layers, 2, 1, heads, 0, head width): keys and values of no tokens."""
    (shape,) = (value.shape for value in session.get_inputs() if value.name == "past")
    layers, _, _, heads, _, head_width = shape
    return np.zeros((layers, 2, 1, heads, 0, head_width), np.float32)


def _choose(logits: NDArray[np.float32], text: bytearray) -> int:
    """The likeliest byte that does not begin a repeat."""
    allowed = logits.copy()
    allowed[_repeats(bytes(text))] = -np.inf
    return int(np.argmax(allowed))


def _repeats(text: bytes) -> list[int]:
    """What followed the last 4 bytes earlier; only between words, to keep words whole."""
    ending = text[-REMEMBERED_BYTES:]
    if not ending[-1:].isspace():
        return []
    places = range(len(text) - len(ending))
    return [text[place + len(ending)] for place in places if text.startswith(ending, place)]
