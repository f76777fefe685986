"""Take the RMS norms in front of layers into their ops.

Before:  x -> Pow, ReduceMean, Add, Sqrt, Reciprocal, Mul, Mul -> BitLinear -> y
After:   x -> BitLinear(norm, gain) -> y

Only where nothing else reads what the norm computes: all of its readers are quantizers of packed layers,
one or several; each then normalises for itself, which is cheaper than the nodes. A norm is compared alone
with its nodes, not with the layer behind it: the float32 mean of a runtime differs from the op's in the
last place, which moves an activation code now and then.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from bitcc import ops
from bitcc.ops import BitLinear, Norm
from bitcc.passes._refused import Refused
from bitcc.passes.between import between
from bitcc.passes.prove import difference
from bitcc.passes.rms_norm import RmsNorm, match_rms_norm
from bitcc.passes.shape_readers import reads_shape
from bitcc.passes.trial_tokens import tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcc.passes.constants import Constants
    from bitcc.passes.layer import Layer
    from bitcc.passes.pack import PackedLayer
    from bitcc.passes.runner import Declared, Runner

TOLERANCE = 1e-6


def fuse_norms(packed: Sequence[PackedLayer], constants: Constants, runner: Runner) -> list[PackedLayer]:
    """The layers in their order, with the norms that are theirs alone."""
    readers: dict[ir.Value, list[PackedLayer]] = defaultdict(list)
    for item in packed:
        readers[item.layer.x].append(item)
    norms = {x: fuse_norm(items, constants, runner) for x, items in readers.items()}
    return [_with_norm(item, norms[item.layer.x]) for item in packed]


def fuse_norm(packed: Sequence[PackedLayer], constants: Constants, runner: Runner) -> RmsNorm | None:
    """The norm that makes what these layers read, all of them the same, if they can have it; else None."""
    layer = packed[0].layer
    if not all(isinstance(item.layer.op, BitLinear) and not item.layer.x_layout for item in packed):
        return None
    if layer.x.is_graph_output() or any(item.layer.node.graph is not layer.x.graph for item in packed):
        return None  # the last: a norm in front of a Loop would be computed in each of its turns
    norm = match_rms_norm(layer.x, layer.op.K, constants)
    if norm is None:
        return None
    try:
        parts = [part for item in packed for part in item.parts]
        nodes = {node for part in parts for node in between(part, (), constants, loose=True)[0]}
        read_elsewhere = any(use.node not in nodes and not reads_shape(use.node) for use in layer.x.uses())
        proven = not read_elsewhere and _error(layer, norm, constants, runner) <= TOLERANCE
    except Refused:
        return None
    return norm if proven else None


def _error(layer: Layer, norm: RmsNorm, constants: Constants, runner: Runner) -> float:
    """The largest difference of the op's norm from the original nodes, relative to max|y| of a token."""
    nodes, leaves = between(replace(layer, x=norm.x, y=layer.x), (), constants, loose=True)
    fed = {v: constants.array(v) for v in leaves}
    types: dict[ir.Value, Declared] = {norm.x: (ir.DataType.FLOAT, None)}
    types |= {v: (ir.DataType.from_numpy(a.dtype), a.shape) for v, a in fed.items()}
    run = runner.prepare(nodes, types, layer.x)
    op, worst = _op(layer, norm), 0.0
    for x in tokens(layer, op.K):
        got = ops.normalize(x.reshape(-1, op.K), norm.gain, op).reshape(x.shape)
        worst = float(np.maximum(worst, difference(got, run({**fed, norm.x: x}))))
    return worst


def _op(layer: Layer, norm: RmsNorm) -> BitLinear:
    if not isinstance(layer.op, BitLinear):
        raise TypeError(f"{type(layer.op).__name__} has no norm")
    return replace(layer.op, norm=Norm.RMS, norm_eps=norm.eps)


def _with_norm(item: PackedLayer, norm: RmsNorm | None) -> PackedLayer:
    if norm is None:
        return item
    layer = replace(item.layer, x=norm.x, op=_op(item.layer, norm), gain=norm.gain)
    return replace(item, layer=layer)
