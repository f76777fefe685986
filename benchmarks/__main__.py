"""``python -m benchmarks op|block|model``: bitcc against other ways to run the same layers."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import block_suite, model_suite, op_suite, peers, report, roofline
from bitcc.bench.results import CACHED, STREAMED

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    suites = main.add_subparsers(dest="suite", required=True)
    op = suites.add_parser("op", help="one layer, against all peers")
    op.add_argument("--shapes", nargs="+", type=shape, metavar="NxK")
    op.add_argument("--regimes", nargs="+", choices=(CACHED, STREAMED))
    op.add_argument("--peers", nargs="*", choices=peers.NAMES, metavar="PEER", help=", ".join(peers.NAMES))
    op.add_argument("--parts", nargs="+", choices=op_suite.PARTS, help="those layers, or small and odd ones")
    op.add_argument("--prebuilt", type=Path, metavar="DIR", help="libraries of `prebuild`: no TVM, no zig")
    op.add_argument("--plot", type=Path, metavar="FILE.png", help="the roofline")
    prebuild = suites.add_parser("prebuild", help="make the folder for `op --prebuilt`")
    prebuild.add_argument("folder", type=Path)
    block = suites.add_parser("block", help="a decoder block of the shape of BitNet b1.58 2B4T")
    block.add_argument("--past", type=int, help="tokens in the cache of keys and values")
    model = suites.add_parser("model", help="a whole model before and after")
    model.add_argument("model", nargs="?", type=Path, default=model_suite.EXAMPLE)
    model.add_argument("--dim", nargs="*", type=dim, default=[], metavar="NAME=SIZE")
    for suite in (op, block):
        suite.add_argument("--tokens", nargs="+", type=int, metavar="M")
    for suite in (op, block, model):
        suite.add_argument("--threads", nargs="+", type=int)
        suite.add_argument("--rounds", type=int)
        suite.add_argument("--quick", action="store_true", help="less of everything")
        suite.add_argument("--json", type=Path, metavar="FILE")
    return main


def shape(text: str) -> tuple[int, int]:
    """N and K of ``NxK``."""
    n, k = map(int, text.split("x"))
    return n, k


def dim(text: str) -> tuple[str, int]:
    """Name and size of ``NAME=SIZE``."""
    name, size = text.split("=")
    return name, int(size)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, write files."""
    chosen = parser().parse_args(arguments)
    if chosen.suite == "prebuild":
        op_suite.prebuild(chosen.folder)
        return
    result = {"op": _op, "block": _block, "model": _model}[chosen.suite](chosen)
    print(report.markdown(result))
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if getattr(chosen, "plot", None):
        try:
            roofline.draw(result, chosen.plot)
        except ImportError as error:
            sys.exit(f"no plot: {error}")


def _given(chosen: argparse.Namespace, *names: str) -> dict[str, Any]:
    values = {name: getattr(chosen, name) for name in names}
    return {n: tuple(v) if isinstance(v, list) else v for n, v in values.items() if v is not None}


def _op(chosen: argparse.Namespace) -> dict[str, Any]:
    choice = op_suite.quick() if chosen.quick else op_suite.Choice()
    if chosen.rounds:
        choice = replace(choice, pace=replace(choice.pace, rounds=chosen.rounds))
    given = _given(chosen, "shapes", "tokens", "threads", "regimes", "peers", "parts", "prebuilt")
    return op_suite.run(replace(choice, **given), _say)


def _block(chosen: argparse.Namespace) -> dict[str, Any]:
    choice = block_suite.quick() if chosen.quick else block_suite.Choice()
    return block_suite.run(replace(choice, **_given(chosen, "tokens", "threads", "past", "rounds")))


def _model(chosen: argparse.Namespace) -> dict[str, Any]:
    rounds = chosen.rounds or (5 if chosen.quick else 15)
    return model_suite.run(chosen.model, dict(chosen.dim), (chosen.threads or [0])[0], rounds)


def _say(what: str, done: int, total: int) -> None:
    print(f"{done}/{total} {what}", file=sys.stderr)


if __name__ == "__main__":
    main()
