"""What is told of weights besides the reason: their levels, and what they come closest to."""

from __future__ import annotations

import models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models.matrices import CODES, SCALE, SHAPE, TERNARY, VALUES, changed, levels, with_weight

from bitcc.facts import KEPT
from bitcc.passes.matrix import Matrix
from bitcc.passes.weight_facts import of_dense

NEAREST = {
    "dense": "dense, 45% off ternary",
    "dense, of low precision": "dense, 45% off ternary",
    "int8": "255 levels (8 bits)",
    "int4": "15 levels (4 bits)",
    "int4 of groups": "15 levels (4 bits) with a scale for each 16 columns",
    "2 bits, 4 levels": "4 levels (2 bits)",
    "5 levels": "5 levels (3 bits)",
    "0, s and 2s": "ternary, shifted by 1 s",
    "two ternary planes": "9 levels (4 bits)",
    "asymmetric": "ternary, asymmetric: -1, 0 and 1.3",
    "shifted": "ternary, shifted by 0.1 s",
    "half sparse": "dense, 49% zero, 51% off ternary",
    "one real value a row": "dense, 99% zero, 0% off ternary",
    "one real value a group": "dense, 94% zero, 58% off ternary",
    "jitter": "ternary, with noise of 0.7% around its levels",
    "gain in the columns": "ternary, with a gain for each column",
    "all zero": "",
    "one outlier": "ternary, with one outlier at [3, 5]",
    "NaN": "",
    "infinity": "",
    "few outputs": "ternary",
    "few inputs": "ternary",
    "few weights": "ternary",
    "many inputs": "",
}
LEVELS = {
    "2 bits, 4 levels": (-1.5, -0.5, 0.5, 1.5),
    "asymmetric": (-1, 0, 1.3),
    "shifted": (-0.9, 0.1, 1.1),
    "0, s and 2s": (0, 1, 2),
    "one outlier": (-1, 0, 1, 50),
    "many inputs": (-1, 0, 1),
}


@pytest.mark.parametrize("name", VALUES)
def test_it_is_told_what_the_weights_come_closest_to(name: str) -> None:
    layer = models.pack(with_weight(VALUES[name][0], "weight_only/dense"), min_weights=0)[1][0]
    assert layer.nearest == NEAREST[name]
    assert len(layer.levels) == len(layer.shares) <= 32
    assert bool(layer.levels) is (name not in {"all zero", "NaN", "infinity"})
    if layer.levels:
        assert sum(layer.shares) == pytest.approx(1, abs=1e-3)
    if name in LEVELS:
        assert layer.levels == pytest.approx(LEVELS[name], abs=1e-3)
        assert layer.entropy is not None
        assert 0 < layer.entropy <= np.log2(len(layer.levels))


@pytest.mark.parametrize(("noise", "is_near"), [(0.3, True), (3, False)])
def test_a_fix_is_told_of_weights_that_are_near_ternary(noise: float, is_near: bool) -> None:  # noqa: FBT001
    weight = CODES + noise * np.random.default_rng(0).standard_normal(SHAPE)
    layer = models.pack(with_weight(weight.astype(np.float32), "weight_only/dense"))[1][0]
    assert layer.fix.startswith("if it was trained ternary, export it") is is_near
    assert bool(layer.fix) is is_near


def test_a_fix_is_told_of_dense_weights_behind_a_quantizer() -> None:
    layer = models.pack(with_weight(VALUES["dense"][0]))[1][0]
    assert layer.activation == "int8_token"
    assert layer.fix.startswith("its activations are those of a BitLinear")


def test_what_the_weights_come_closest_to_is_found_in_a_large_matrix() -> None:
    """The outlier is in no sample."""
    weight = levels(-1, 0, 1, shape=(300, 3000))
    weight[201, 2999] = 9 * SCALE
    layer = models.pack(with_weight(weight, "weight_only/dense"))[1][0]
    assert layer.nearest == "ternary, with one outlier at [201, 2999]"
    assert layer.fix.startswith("clip them before the export")


@given(
    st.sampled_from([(4, 16), (5, 13), (70, 4), (16, 256)]),
    st.integers(-320, 307),
    st.lists(st.floats(width=64), min_size=1, max_size=20),
    st.integers(0, 2**32 - 1),
)
@pytest.mark.filterwarnings("error")
def test_no_weights_are_too_large_or_too_odd(
    shape: tuple[int, int], power: int, drawn: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    for weight in (rng.standard_normal(shape) * 10.0**power, rng.choice(drawn, shape)):
        facts, _ = of_dense(Matrix.of(weight))
        assert np.isfinite([*facts.levels, *facts.shares, facts.entropy or 0]).all()
        assert not any(word in facts.nearest for word in ("nan", "inf"))


ROW = np.linspace(1, 2, SHAPE[0]).reshape(-1, 1)
FINER = {
    "int4 of rows": (levels(*range(-7, 8)) * ROW, "15 levels (4 bits) with a scale for each row"),
    "4 levels of rows": (levels(-3, -1, 1, 3) * ROW, "4 levels (2 bits) with a scale for each row"),
    "shifted rows": (
        levels(-1, 0, 1) * ROW + ROW[::-1] / 9,
        "three levels with a scale for each row, not around zero",
    ),
    "two levels": (levels(-0.2, 1), "2 levels: -0.2 and 1"),
    "three odd levels": (levels(-0.5, 0.2, 1), "3 levels: -0.5 and 0.2 and 1"),
    "some outliers": (
        changed(TERNARY, ([1, 2, 9], [5, 5, 0]), 9 * SCALE),
        "ternary, with 3 outliers, the first at [1, 5]",
    ),
}


@pytest.mark.parametrize("name", FINER)
def test_so_is_what_rows_come_closest_to(name: str) -> None:
    weight, words = FINER[name]
    layer = models.pack(with_weight(weight.astype(np.float32), "weight_only/dense"))[1][0]
    assert (layer.status, layer.nearest) == (KEPT, words)


def test_a_ternary_layer_that_is_kept_is_described_as_well() -> None:
    layer = models.pack(with_weight(TERNARY), min_weights=10**6)[1][0]
    assert (layer.status, layer.scheme, layer.scope, layer.activation) == (
        KEPT,
        "ternary",
        "tensor",
        "int8_token",
    )
    assert layer.fix == f"--min-weights {TERNARY.size}"
    assert layer.levels == (-1, 0, 1)
    assert layer.zeros == pytest.approx(np.mean(CODES == 0))
    assert layer.shares == pytest.approx([np.mean(level == CODES) for level in layer.levels])
    assert layer.entropy == pytest.approx(-sum(share * np.log2(share) for share in layer.shares))
