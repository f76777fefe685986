"""The pass: find, prove and pack every BitLinear of a model, and report on every candidate."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import onnx_ir as ir

from bitcc import formats
from bitcc.errors import ModelError
from bitcc.facts import KEPT, PACKED, FormatChoice, LayerFacts, Numerics
from bitcc.function_body import MIN_OPSET
from bitcc.ops import BitLinear
from bitcc.passes._refused import Refused
from bitcc.passes.between import in_half_precision
from bitcc.passes.constants import Constants
from bitcc.passes.detect import Finding, candidates, detect
from bitcc.passes.fuse_norms import fuse_norms
from bitcc.passes.inferred_shapes import inferred_shapes
from bitcc.passes.inline import FACTS_INSIDE
from bitcc.passes.joined import joined, settle
from bitcc.passes.layer import Layer
from bitcc.passes.lower_qonnx import lower_quantizers
from bitcc.passes.numerics import faithful
from bitcc.passes.pack import PackedLayer, replace_layers
from bitcc.passes.prove import TOLERANCE, Proof, prove_layer
from bitcc.passes.prove_codes import check_codes
from bitcc.passes.runner import Runner
from bitcc.passes.siblings import merge_siblings
from bitcc.passes.unfuse import unfused
from bitcc.passes.weight import stored_weights
from bitcc.passes.weight_facts import of_ternary
from bitcc.passes.weight_format import chosen_format

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Store: TypeAlias = "Callable[[formats.Bytes], ir.TensorProtocol]"
Progress: TypeAlias = "Callable[[int, int, str], None]"

FACTS = "bitcc.layers"
"""Key of ``model.meta`` under which the pass leaves its ``tuple[LayerFacts, ...]``."""

_REPORT = "report it with the model: it looks like a BitLinear and is none"


class _Where(NamedTuple):
    """The model that a layer is in, what is known of it, and the format of its int8 layers."""

    model: ir.Model
    constants: Constants
    runner: Runner
    weight_format: formats.WeightFormat


class PackBitLinearPass(ir.passes.InPlacePass):
    """Replace the ternary layers of a model by ``BitLinear`` or ``TernaryLinear``, weights packed.

    1. A candidate is a MatMul, Gemm, Einsum, Conv or the like of a computed tensor and a constant.
    2. Its weights must be ternary by value; ``detect`` says which op it becomes.
    3. The rewrite must compute what the original nodes compute in onnxruntime.
    4. Layers that quantise the same activations become one op where that is faster.
    5. Everything else stays as it is, with the first rule that failed as the reason.
    """

    def __init__(
        self,
        *,
        min_weights: int | None = None,
        prove: bool = True,
        merge: bool = True,
        numerics: Numerics = Numerics.FP32,
        weight_format: FormatChoice = FormatChoice.T2,
        store: Store | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Set what to do.

        Args:
            min_weights: Layers with fewer weights stay as they are; None leaves those that are faster so.
            prove: Run every layer before and after in onnxruntime, and keep those that differ.
            merge: Make one op of layers that quantise the same activations, where that is faster.
            numerics: Of the activation quantizers of half-precision models.
            weight_format: Of layers with int8 activations; those with float ones are packed as ``t2``.
                ``AUTO`` is ``t5`` for models with many weights, which serves x86-64.
            store: Where packed weights go until the model is saved; default: memory.
            progress: Called with (done, all, name) before each candidate.
        """
        super().__init__()
        self.min_weights = min_weights
        self._prove = prove
        self._merge = merge
        self._numerics = Numerics(numerics)
        self._weight_format = FormatChoice(weight_format)
        self._store: Store = store or ir.tensor
        self._progress = progress

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the model; ``model.meta[FACTS]`` tells of every candidate.

        Raises:
            ModelError: there is something to pack, but the opset cannot express the function body.
        """
        packed: list[PackedLayer] = []
        facts: dict[ir.Node, LayerFacts] = {}
        stored: dict[bytes, ir.TensorProtocol] = {}
        runner = Runner(model)
        with unfused(model), inferred_shapes(model), joined(model, runner) as joins:
            constants, hidden = Constants(model), {node for join in joins for node in join.hidden}
            nodes = [node for node in candidates(model, constants) if node not in hidden]
            weight_format = chosen_format(self._weight_format, nodes, constants)
            where = _Where(model, constants, runner, weight_format)
            for i, node in enumerate(nodes):
                if self._progress is not None:
                    self._progress(i, len(nodes), node.name or "")
                item, fact = self._examine(node, where, stored)
                facts[node] = fact
                if item is not None:
                    packed.append(item)
            if packed:
                _check_opset(model)
            settle(joins, {item.layer.node for item in packed})
            layers = merge_siblings(packed, model.graph) if self._merge else packed
            facts.update(_merged_facts(layers, facts))
            layers = fuse_norms(layers, constants, runner)
            facts.update(_fused_facts(layers, facts))
            stored_by = {item.layer.node: stored_weights(item.layer.node, constants) for item in packed}
            replace_layers(model, layers, constants)
            facts.update(_tied_facts(stored_by, facts))
            if packed:
                lower_quantizers(model, constants)
        model.meta[FACTS] = (*facts.values(), *model.meta.pop(FACTS_INSIDE, ()))
        return ir.passes.PassResult(model, modified=bool(packed))

    def _examine(
        self, node: ir.Node, where: _Where, stored: dict[bytes, ir.TensorProtocol]
    ) -> tuple[PackedLayer | None, LayerFacts]:
        found: Finding = detect(node, where.constants, self.min_weights, where.weight_format)
        if isinstance(found, LayerFacts):
            return None, found
        prepared = _prepared(found, where.weight_format)
        del found  # with its codes
        try:
            return self._proven(prepared, where, stored)
        except Refused as refusal:
            not_int8 = refusal
        if isinstance(prepared.layer.op, BitLinear):
            as_float = detect(node, where.constants, self.min_weights, not_int8=not_int8)
            with suppress(Refused):
                if isinstance(as_float, Layer):
                    return self._proven(_prepared(as_float, where.weight_format), where, stored)
        return None, _kept(prepared.facts, not_int8)

    def _proven(
        self, prepared: _Prepared, where: _Where, stored: dict[bytes, ir.TensorProtocol]
    ) -> tuple[PackedLayer, LayerFacts]:
        """The layer with its weights stored.

        Raises:
            Refused: it differs from the original, or cannot be compared with it.
        """
        layer, data = prepared.layer, prepared.data
        if self._numerics is Numerics.FAITHFUL:
            layer = faithful(layer, where.constants)
        proof = self._proof(layer, data, where)
        if proof is not None and not proof.error <= TOLERANCE:  # written so that NaN fails
            reason = (
                f"packed, it differs from the original by {proof.error:.1e} of max|y|, over {TOLERANCE:.0e}"
            )
            raise Refused(reason, fix=_REPORT)
        digest = hashlib.sha256(data.data).digest() + repr(data.shape).encode()
        if digest not in stored:
            stored[digest] = self._store(data)
        facts = replace(prepared.facts, numerics=_numerics(layer, where.constants, self._numerics))
        if proof is not None:
            facts = replace(facts, max_error=proof.error, weight_error=proof.weight_error)
        return PackedLayer(layer, stored[digest]), facts

    def _proof(self, layer: Layer, data: formats.Bytes, where: _Where) -> Proof | None:
        if not self._prove:
            return None
        if self._numerics is Numerics.FAITHFUL and in_half_precision(layer, where.constants):
            check_codes(layer, where.model, where.constants)
        return prove_layer(layer, data, where.constants, where.runner)


class _Prepared(NamedTuple):
    """A layer whose weights have been packed.

    Attributes:
        layer: Without its codes.
        data: The packed weights.
        facts: All but what the proof finds.
    """

    layer: Layer
    data: formats.Bytes
    facts: LayerFacts


def _prepared(layer: Layer, of_int8: formats.WeightFormat) -> _Prepared:
    fmt = of_int8 if isinstance(layer.op, BitLinear) else formats.FORMATS["t2"]
    op = replace(layer.op, weight_format=fmt.name, layout_version=fmt.layout_version)
    data = layer.ternary.codes.packed_as(fmt).data
    return _Prepared(replace(layer.without_codes(), op=op), data, _facts(layer, fmt, data.nbytes))


def _check_opset(model: ir.Model) -> None:
    opset = model.opset_imports.get("", 0)
    if opset < MIN_OPSET:
        raise ModelError(
            f"the model's opset is {opset}; packing its BitLinears needs {MIN_OPSET} or newer",
            hint="export it with opset_version=18, or convert it with onnx.version_converter.convert_version",
        )


def _facts(layer: Layer, fmt: formats.WeightFormat, packed_bytes: int) -> LayerFacts:
    facts = LayerFacts(
        name=layer.name,
        op=layer.node.op_type,
        N=layer.op.N,
        K=layer.op.K,
        activation=getattr(layer.op, "activation", "float"),
        status=PACKED,
        reason=layer.note,
        fix=layer.fix,
        bytes_before=layer.bytes_before,
        bytes_after=packed_bytes + layer.w_scale.nbytes + layer.bias.nbytes,
        weight_format=fmt.name,
        **asdict(of_ternary(layer.ternary)),
    )
    return replace(facts, scale=float(layer.w_scale.mean()))


def _kept(facts: LayerFacts, refusal: Refused) -> LayerFacts:
    """What is told of a layer that cannot be proven."""
    reason, fix = refusal.reason, refusal.fix
    bytes_after = facts.bytes_before
    return replace(facts, status=KEPT, reason=reason, fix=fix, bytes_after=bytes_after, weight_format="")


def _merged_facts(
    layers: Sequence[PackedLayer], facts: Mapping[ir.Node, LayerFacts]
) -> dict[ir.Node, LayerFacts]:
    """The facts of the layers that became one op with others."""
    changed: dict[ir.Node, LayerFacts] = {}
    for item in layers:
        for part in item.siblings:
            size = part.weight.nbytes + part.layer.w_scale.nbytes + part.layer.bias.nbytes
            fact = facts[part.layer.node]
            changed[part.layer.node] = replace(fact, merged=item.layer.name, bytes_after=size)
    return changed


def _fused_facts(
    layers: Sequence[PackedLayer], facts: Mapping[ir.Node, LayerFacts]
) -> dict[ir.Node, LayerFacts]:
    """The facts of the layers whose ops have a norm."""
    return {
        part.node: replace(
            facts[part.node], norm="rms", bytes_after=facts[part.node].bytes_after + gain.nbytes
        )
        for item in layers
        if (gain := item.layer.gain) is not None
        for part in item.parts
    }


def _tied_facts(
    stored: Mapping[ir.Node, Mapping[ir.Value, int]], facts: Mapping[ir.Node, LayerFacts]
) -> dict[ir.Node, LayerFacts]:
    """The facts of packed layers whose weights something else reads too: an embedding, for instance."""
    changed: dict[ir.Node, LayerFacts] = {}
    told: set[ir.Value] = set()
    for node, sizes in stored.items():
        for value, size in sizes.items():
            fact = changed.get(node, facts[node])
            if value in told or 8 * size < fact.N * fact.K or not (readers := _readers(value)):
                continue
            told.add(value)
            note = f"its weight stays in the model too, {size} bytes more: {readers[0]} reads it"
            reason = "; ".join(filter(None, (fact.reason, note)))
            changed[node] = replace(fact, reason=reason, bytes_after=fact.bytes_after + size)
    return changed


def _readers(value: ir.Value) -> list[str]:
    """What uses a constant that is still in the model."""
    nodes = [use.node for use in value.uses() if use.node.graph is not None]
    words = [f"`{node.name or node.outputs[0].name}` ({node.op_type})" for node in nodes]
    return [*words, *(["whoever runs the model"] if value.is_graph_output() else [])]


def _numerics(layer: Layer, constants: Constants, numerics: Numerics) -> str:
    if in_half_precision(layer, constants):
        is_faithful = numerics is Numerics.FAITHFUL and isinstance(layer.op, BitLinear)
        return "faithful" if is_faithful else "float32"
    if layer.node.attributes.get_int("accuracy_level", 0) > 1:
        return "float32"
    return "snapped" if layer.ternary.noisy else "exact"
