"""JSON of bitcc is JSON for every reader."""

from __future__ import annotations

import json

import pytest

from bitcc import json_text


def test_plain_data_comes_back() -> None:
    data = {"name": "Schicht ü", "shares": [0.25, 1], "error": None, "good": True}
    text = json_text.dumps(data)
    assert text.isascii()
    assert json_text.loads(text) == data


def test_what_json_does_not_know_is_null() -> None:
    numbers = (float("nan"), float("inf"), -float("inf"), 1e300)
    assert json.loads(json_text.dumps({"a": {"b": numbers}})) == {"a": {"b": [None, None, None, 1e300]}}


def test_half_of_a_surrogate_pair_is_replaced() -> None:
    assert json.loads(json_text.dumps({"\udcff": ["a\udcff"]})) == {"?": ["a?"]}


@pytest.mark.parametrize("text", ["NaN", '{"a": -Infinity}', "[Infinity]", "{", ""])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting"):
        json_text.loads(text)
