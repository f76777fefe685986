"""Layers that quantise copies of the same activations are siblings as if there were no copies."""

from __future__ import annotations

import models
import numpy as np
import pytest
from models import siblings
from models.siblings import MERGED, ROWS, WIDTH, assert_apart, assert_merged, copied, product, quantizer

NORM = """
  {n}_square = Mul (x, x)
  {n}_mean = ReduceMean <axes = [-1], keepdims = 1> ({n}_square)
  {n}_plus = Add ({n}_mean, {eps})
  {n}_root = Sqrt ({n}_plus)
  {n}_normal = Div (x, {n}_root)
"""


def norms(*, eps: str = "eps") -> str:
    """A copy for q and k; v has one with another epsilon if ``eps`` is one."""
    return "".join(NORM.format(n=n, eps=eps if n == "v" else "eps") for n in ROWS)


@pytest.mark.parametrize("opset", [15, 17])
def test_copies_of_what_is_in_front_of_the_layers_are_seen_through(opset: int) -> None:
    x = {n: f"{n}_normal" for n in ROWS}
    merged = assert_merged(siblings.model(copied(x=x, front=norms()), opset=opset))
    assert models.op_types(merged) == ["BitLinear", "Split"]  # their norm is in the op


def test_copies_with_another_attribute_or_constant_are_not() -> None:
    x = {n: f"{n}_normal" for n in ROWS}
    content = copied(x=x, front=norms(eps="other_eps"))
    _, facts = models.pack(siblings.model(content, opset=17))
    assert [f.merged for f in facts] == ["q_proj+k_proj", "q_proj+k_proj", ""]


NORM_WITH_GAIN = "{n}_gain = Constant <value_floats = [{gain}]> ()\n {n}_normal = Mul (x, {n}_gain)\n"


@pytest.mark.parametrize(("gain", "found"), [("2.0", MERGED), ("2.5", "")])
def test_constants_are_compared_by_content(gain: str, found: str) -> None:
    front = "".join(NORM_WITH_GAIN.format(n=n, gain=gain if n != "q" else "2.0") for n in ROWS)
    content = copied(x={n: f"{n}_normal" for n in ROWS}, front=front)
    _, facts = models.pack(siblings.model(content))
    assert facts[0].merged == found


@pytest.mark.parametrize(("second", "found"), [(0, MERGED), (1, "")])
def test_initializers_are_compared_by_content(second: int, found: str) -> None:
    front = 'q_in = Mul (x, "a")\n k_in = Mul (x, "b")\n v_in = Identity (k_in)\n'
    gain = np.linspace(1, 2, WIDTH, dtype=np.float32)
    model = siblings.model(
        copied(x={n: f"{n}_in" for n in ROWS}, front=front), values={"a": gain, "b": gain + second}
    )
    _, facts = models.pack(model)
    assert facts[0].merged == found


def test_random_values_are_not_copies_of_one_another() -> None:
    front = "".join(f"{n}_noise = RandomNormalLike (x)\n {n}_in = Add (x, {n}_noise)\n" for n in ROWS)
    assert_apart(siblings.model(copied(x={n: f"{n}_in" for n in ROWS}, front=front)))


def test_values_of_ops_that_nobody_knows_are_not_copies_of_one_another() -> None:
    front = "".join(f"{n}_in = com.microsoft.QuickGelu (x)\n" for n in ROWS)
    content = copied(x={n: f"{n}_in" for n in ROWS}, front=front)
    assert_apart(siblings.model(content, opsets=', "com.microsoft" : 1'))


def test_layers_of_different_activations_stay_apart() -> None:
    assert_apart(
        siblings.model(copied(x={"k": "k_in", "v": "v_in"}, front="k_in = Neg (x)\n v_in = Exp (x)\n"))
    )


def test_layers_whose_quantizers_differ_stay_apart() -> None:
    kinds = {"q": "eps", "k": "other_eps"}
    nodes = "".join(quantizer(n, "x", eps) + product(n, n) for n, eps in kinds.items())
    assert_apart(siblings.model(nodes, {n: ROWS[n] for n in kinds}), layers=2)


@pytest.mark.parametrize(("op", "found"), [("Tanh", "k_proj+v_proj"), ("Sigmoid", "")])
def test_copies_in_a_branch_are_seen_through(op: str, found: str) -> None:
    front = f"k_in = Tanh (x)\n v_in = {op} (x)\n"
    inside = copied(["k", "v"], {"k": "k_in", "v": "v_in"}, front)
    for name in ("k", "v"):
        inside = inside.replace(f'"{name}.weight"', f"{name}_weight")
    nodes = f"""
      k_weight = Identity ("k.weight")
      v_weight = Identity ("v.weight")
      zeros = Identity (fallback)
      z = If <
        then_branch = then_graph () => (float[2, 3, 32] o) {{ {inside} o = Add (k, v) }},
        else_branch = else_graph () => (float[2, 3, 32] p) {{ p = Identity (zeros) }}
      > (yes)"""
    values = {"yes": np.ones((), np.bool_), "fallback": np.zeros((2, 3, 32), np.float32)}
    model = siblings.model(nodes, {"k": 32, "v": 32}, outputs=["z"], values=values)
    model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value = 32
    packed, facts = models.pack(model)
    assert [f.merged for f in facts] == [found, found]
    x = models.tokens(2, 3, k=WIDTH)
    (got,), (want,) = models.run(packed, x), models.run(model, x)
    assert models.largest_difference(got, want) < 1e-5
