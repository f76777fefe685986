"""``bitcc targets``."""

from __future__ import annotations

from bitcc.cli.options import Json
from bitcc.cli.terminal import print_json, show


def targets(as_json: Json = False) -> None:
    """List what can be compiled for."""
    from bitcc import report
    from bitcc import targets as known

    rows = [
        {
            "name": t.name,
            "needs": t.needs,
            "isas": [v.name for v in t.variants],
            "gpus": t.gpu_code,
            "notes": {v.name: v.note for v in t.variants if v.note},
            "proof": t.proof,
            "library": t.library,
            "triple": t.zig_triple,
        }
        for t in known.TARGETS.values()
    ]
    if as_json:
        print_json({"targets": rows})
    else:
        show(report.targets_table(tuple(known.TARGETS.values())))
