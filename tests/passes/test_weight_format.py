"""Which format `auto` is: by the number of weights that pass through the caches for each token."""

from __future__ import annotations

import models
import pytest

from bitcc.facts import PACKED, FormatChoice
from bitcc.passes import weight_format

# unpacked from bytes by the graph, evaluated from latent ones, stored; each with a dense head of 20 x 60
SPELLINGS = ("hf_packed", "dynamo", "per_tensor")


def formats(spelling: str, choice: FormatChoice) -> set[str]:
    _, layers = models.pack(models.build(spelling), weight_format=choice)
    return {layer.weight_format for layer in layers if layer.status == PACKED}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_auto_is_t5_from_so_many_weights_on(spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, layers = models.pack(models.build(spelling))
    count = sum(layer.N * layer.K for layer in layers)
    monkeypatch.setattr(weight_format, "BEYOND_CORES", count)
    assert formats(spelling, FormatChoice.AUTO) == {"t5"}
    monkeypatch.setattr(weight_format, "BEYOND_CORES", count + 1)
    assert formats(spelling, FormatChoice.AUTO) == {"t2"}


def test_what_was_asked_for_is_so_for_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_format, "BEYOND_CORES", 1)
    assert formats("dynamo", FormatChoice.T2) == {"t2"}
    assert formats("dynamo", FormatChoice.AUTO) == {"t5"}


def test_a_pass_alone_knows_of_no_target_and_serves_all() -> None:
    _, layers = models.pack(models.build("dynamo"))
    assert {layer.weight_format for layer in layers if layer.status == PACKED} == {"t2"}
