"""ONNX export: one file, no traces of the machine, the weight quantizers still in the graph."""

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir
import torch
from torch.export import Dim

from tiny_lm.model import TinyLm

OPSET = 18
IR_VERSION = 8  # the one of opset 18: older runtimes refuse a file that claims more


def export(model: TinyLm, path: Path) -> None:
    """Write the model with inputs `tokens`, `past` and outputs `logits`, `present`."""
    shape = model.shape
    # Sizes above 1 in the example keep the exporter from treating an axis as constant.
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    past = torch.zeros(shape.layers, 2, 2, shape.heads, 5, shape.head_width)
    batch, sequence, past_sequence = Dim("batch"), Dim("sequence"), Dim("past_sequence")
    program = torch.onnx.export(
        model.eval(),
        (tokens, past),
        dynamo=True,
        opset_version=OPSET,
        input_names=["tokens", "past"],
        output_names=["logits", "present"],
        dynamic_shapes=({0: batch, 1: sequence}, {2: batch, 4: past_sequence}),
        verbose=False,
    )
    if program is None:
        msg = "torch.onnx.export returned no program"
        raise RuntimeError(msg)
    program.model.ir_version = IR_VERSION
    _strip(program.model)
    ir.save(program.model, path)


def _strip(model: ir.Model) -> None:
    """Drop stack traces and the like: they hold file names of the machine that exported."""
    _clear([model, model.graph])
    for function in model.functions.values():
        _clear([function])
    for node in model.graph.all_nodes():
        node.doc_string = None
        _clear([node, *node.outputs])
    _clear([*model.graph.inputs, *model.graph.initializers.values()])


def _clear(owners: Iterable[ir.Model | ir.Graph | ir.Function | ir.Node | ir.Value]) -> None:
    for owner in owners:
        owner.metadata_props.clear()
