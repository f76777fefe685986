"""Training: AdamW, warmup and cosine over a given time, not over a given number of steps."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tiny_lm.corpus import Corpus
from tiny_lm.model import TinyLm

SEED = 0
CONTEXT = 256
WARMUP_STEPS = 100
LAST_RATE = 0.02
REPORT_EVERY = 50
SAVE_EVERY = 200


@dataclass(frozen=True)
class Plan:
    """How to train."""

    seconds: float
    batch: int = 8
    rate: float = 2e-3
    weight_decay: float = 0.01
    checkpoint: Path | None = None
    resume: bool = False


@dataclass
class Progress:
    """Where training stands; `seconds` counts over all runs of a resumed training."""

    step: int = 0
    seconds: float = 0.0


def train(model: TinyLm, corpus: Corpus, plan: Plan) -> None:
    """Train until the time is used up, with progress lines."""
    text = _bytes(corpus.training)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.rate, betas=(0.9, 0.95), weight_decay=plan.weight_decay
    )
    progress = _resumed(model, optimizer, plan)
    losses: list[float] = []
    started = time.monotonic() - progress.seconds
    while progress.seconds < plan.seconds:
        _set_rate(optimizer, plan, progress)
        losses.append(_step(model, optimizer, _sample(text, plan.batch, progress.step)))
        progress.step += 1
        progress.seconds = time.monotonic() - started
        if progress.step % REPORT_EVERY == 0:
            _report(progress, plan, losses[-REPORT_EVERY:])
        if progress.step % SAVE_EVERY == 0:
            _save(model, optimizer, plan, progress)
    _save(model, optimizer, plan, progress)


@torch.no_grad()
def held_out_loss(model: TinyLm, corpus: Corpus) -> float:
    """Mean negative log likelihood of a held-out byte, in nats."""
    text = _bytes(corpus.held_out)
    windows = text[: (len(text) - 1) // CONTEXT * CONTEXT + 1].unfold(0, CONTEXT + 1, CONTEXT)
    losses = [_loss(model, batch).item() * len(batch) for batch in windows.split(16)]
    return sum(losses) / len(windows)


def _bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _sample(text: Tensor, batch: int, step: int) -> Tensor:
    """(batch, CONTEXT + 1) windows; the draw depends on the step alone, so resuming is exact."""
    generator = torch.Generator().manual_seed(SEED + step)
    starts = torch.randint(len(text) - CONTEXT, (batch, 1), generator=generator)
    return text[starts + torch.arange(CONTEXT + 1)]


def _loss(model: TinyLm, windows: Tensor) -> Tensor:
    tokens = windows.long()
    logits, _ = model(tokens[:, :-1], model.empty_cache(len(tokens)))
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def _step(model: TinyLm, optimizer: torch.optim.Optimizer, windows: Tensor) -> float:
    loss = _loss(model, windows)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _set_rate(optimizer: torch.optim.Optimizer, plan: Plan, progress: Progress) -> None:
    done = min(progress.seconds / plan.seconds, 1.0)
    cosine = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2
    rate = plan.rate * cosine * min((progress.step + 1) / WARMUP_STEPS, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate


def _report(progress: Progress, plan: Plan, losses: list[float]) -> None:
    print(
        f"step {progress.step:5d}  {progress.seconds:5.0f} of {plan.seconds:.0f} s  "
        f"training loss {sum(losses) / len(losses):.4f} nats/byte",
        flush=True,
    )


def _save(model: TinyLm, optimizer: torch.optim.Optimizer, plan: Plan, progress: Progress) -> None:
    if plan.checkpoint is None:
        return
    # Written beside and moved: a stop while writing must not cost the last good checkpoint.
    fresh = plan.checkpoint.with_suffix(".new")
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": progress.step,
            "seconds": progress.seconds,
        },
        fresh,
    )
    fresh.replace(plan.checkpoint)


def _resumed(model: TinyLm, optimizer: torch.optim.Optimizer, plan: Plan) -> Progress:
    if not plan.resume or plan.checkpoint is None or not plan.checkpoint.exists():
        return Progress()
    saved = torch.load(plan.checkpoint, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return Progress(saved["step"], saved["seconds"])
