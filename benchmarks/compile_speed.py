"""How fast the passes go through a model: megabytes of weights a second, and time for each node.

For models of many nodes also a whole compilation, with the comparison of both models at its end.

Seconds are those of one thread's processor time, the best of several runs: what else runs on the machine
counts little.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import onnx_ir as ir

from benchmarks import layer_models
from bitcc import libraries, passes, pipeline
from bitcc.facts import PACKED, FormatChoice

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bitcc.formats import Bytes

_NODES = (100, 1000, 5000)
_NODES_IN_A_LAYER = 22
_SMALL_SIDE = 64


def seconds(model: Path, layers: int, weight_format: FormatChoice, *, prove: bool) -> float:
    """Of reading the model and running the passes; packed weights go to a file."""
    with tempfile.TemporaryFile() as spool:

        def store(data: Bytes) -> ir.TensorProtocol:
            spool.write(data.data)
            return ir.tensor(data[:0].copy())

        pack = passes.PackBitLinearPass(min_weights=0, prove=prove, weight_format=weight_format, store=store)
        start = time.process_time()
        loaded = ir.load(model)
        passes.pipeline(pack)(loaded)
        took = time.process_time() - start
    facts = loaded.meta[passes.FACTS]
    if [fact.status for fact in facts] != [PACKED] * layers:
        raise SystemExit(f"not all layers were packed: {facts[0].reason}")
    return took


def forms(
    names: Iterable[str], side: int, layers: int, runs: int, weight_format: FormatChoice
) -> Iterator[dict[str, Any]]:
    """MB of stored weights a second, for each way to write them."""
    for form in names:
        with tempfile.TemporaryDirectory() as folder:
            size = layer_models.write(Path(folder), form, layers, side) / 1e6
            for prove in (True, False):
                model = Path(folder, "model.onnx")
                best = min(seconds(model, layers, weight_format, prove=prove) for _ in range(runs))
                yield {"form": form, "proof": prove, "mb": size, "seconds": best, "mb_per_s": size / best}


def nodes(counts: Iterable[int], runs: int) -> Iterator[dict[str, Any]]:
    """Time for models of many small layers: of the passes, and of a compilation."""
    for count in counts:
        layers = max(1, count // _NODES_IN_A_LAYER)
        with tempfile.TemporaryDirectory() as folder:
            layer_models.write(Path(folder), "latent fp32", layers, _SMALL_SIDE)
            model = Path(folder, "model.onnx")
            best = min(seconds(model, layers, FormatChoice.T2, prove=True) for _ in range(runs))
            compiled = min(compile_seconds(model) for _ in range(runs))
        row = {"nodes": count, "layers": layers, "passes": best, "compiled": compiled}
        yield row | {"ms_per_layer": 1e3 * compiled / layers}


def compile_seconds(model: Path) -> float:
    """Of a compilation with its verification."""
    request = pipeline.Request(min_weights=0, verify=True)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        pipeline.compile_model(model, Path(folder, "bundle"), request)
        return time.process_time() - start


def main() -> None:
    """Print tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=4096, help="N and K of a layer")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--forms", nargs="*", choices=layer_models.FORMS, default=layer_models.FORMS)
    parser.add_argument("--weight-format", type=FormatChoice, default=FormatChoice.T2, help="of the forms")
    parser.add_argument("--nodes", nargs="*", type=int, default=_NODES)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if chosen.nodes:
        libraries.library_path()  # built before anything is timed
    tables = {
        "forms": list(forms(chosen.forms, chosen.side, chosen.layers, chosen.runs, chosen.weight_format)),
        "nodes": list(nodes(chosen.nodes, chosen.runs)),
    }
    if chosen.json:
        print(json.dumps(tables, indent=2))
        return
    for rows in tables.values():
        for i, row in enumerate(rows):
            if i == 0:
                print("\n" + "".join(f"{key:>14}" for key in row))
            cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
            print("".join(f"{cell:>14}" for cell in cells))


if __name__ == "__main__":
    main()
