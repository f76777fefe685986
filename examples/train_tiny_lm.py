"""Train a ternary byte-level language model on the documentation of Python, and export it.

    python examples/train_tiny_lm.py --out examples/tiny_lm.onnx --minutes 30

Needs torch, onnx and onnxscript. Using the exported file needs none of them. The learning rate
follows the clock: a busy machine takes fewer steps, and ends with a higher loss.
"""

import argparse
from pathlib import Path

import torch
from tiny_lm.corpus import standard_library_corpus
from tiny_lm.export import export
from tiny_lm.model import Shape, TinyLm
from tiny_lm.training import SEED, Plan, held_out_loss, train


def main() -> None:
    """Train, round the latent weights to float16, export."""
    parser = _parser()
    options = parser.parse_args()
    if options.resume and options.checkpoint is None:
        parser.error("--resume needs --checkpoint FILE, the state to go on from")
    torch.manual_seed(SEED)
    torch.set_num_threads(options.threads)
    corpus = standard_library_corpus()
    print(f"corpus: {len(corpus.training)} bytes, and {len(corpus.held_out)} held out")
    model = TinyLm(Shape())
    print(f"parameters: {sum(p.numel() for p in model.parameters())}", flush=True)
    plan = Plan(
        seconds=60 * options.minutes,
        batch=options.batch,
        rate=options.rate,
        checkpoint=options.checkpoint,
        resume=options.resume,
    )
    train(model, corpus, plan)
    print(f"held-out loss: {held_out_loss(model, corpus):.4f} nats/byte")
    model.store_latent_weights_in_half_precision()
    print(f"held-out loss, float16 latent weights: {held_out_loss(model, corpus):.4f} nats/byte")
    export(model, options.out)
    print(f"wrote {options.out}: {options.out.stat().st_size} bytes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("tiny_lm.onnx"), help="file to write")
    add("--minutes", type=float, default=30.0, help="training time (default: %(default)s)")
    add("--batch", type=int, default=8, help="windows a step (default: %(default)s)")
    add("--rate", type=float, default=2e-3, help="highest learning rate (default: %(default)s)")
    add("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    add("--checkpoint", type=Path, help="file to save the state of training to, now and then")
    add("--resume", action="store_true", help="go on from the checkpoint if it exists")
    return parser


if __name__ == "__main__":
    main()
