"""Every TernaryLinear that the library cannot run rightly is refused, in words that name node and value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitcc.ternary_linear import TernaryLinear

if TYPE_CHECKING:
    from collections.abc import Callable

X = np.zeros((2, 70), np.float32)
OP = TernaryLinear(K=70, N=20, group_size=32)
NEWER = "was the model made by a newer bitcc?"


@pytest.fixture
def linear(ternary: Callable[..., Any]) -> Any:
    return ternary(K=70, N=20, group_size=32)


def refusal(opened: Callable[[], Any]) -> str:
    with pytest.raises(Exception, match="ONNXRuntimeError") as caught:
        opened()
    return str(caught.value)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("weight_format", "t5", f"`weight_format` is `t5`, known is `t2`; {NEWER}"),
        ("layout_version", 2, f"`layout_version` is 2, known are 1 to 1; {NEWER}"),
        ("K", 0, "`K` is 0, known are 1 to 65536"),
        ("K", 2**31 - 1, "`K` is 2147483647, known are 1 to 65536"),
        ("K", 65537, "`K` is 65537, known are 1 to 65536"),
        ("N", 0, "`N` is 0, known are 1 to"),
        ("N", 2**62, f"`N` is {2**62}, known are 1 to"),
        ("group_size", 0, "`group_size` is 0, known are 1 to 70"),
        ("group_size", -16, "`group_size` is -16, known are 1 to 70"),
        ("group_size", 71, "`group_size` is 71, known are 1 to 70"),
        ("group_size", 80, "`group_size` is 80, known are 1 to 70"),
        ("group_size", 2**62, f"`group_size` is {2**62}, known are 1 to 70"),
        ("group_size", 40, "`group_size` is 40, neither K = 70 nor a multiple of 16"),
        ("group_size", 32.0, "`group_size` is missing or is no int"),
    ],
)
def test_unknown_attribute_values_are_named(
    session: Callable[..., Any], linear: Any, attribute: str, value: Any, message: str
) -> None:
    text = refusal(lambda: session(linear.model(X, attributes={attribute: value})))
    assert "bitcc::TernaryLinear `bl0`: " in text
    assert message in text


@pytest.mark.parametrize("name", OP.attributes())
def test_no_attribute_may_be_missing(session: Callable[..., Any], linear: Any, name: str) -> None:
    text = refusal(lambda: session(linear.model(X, attributes={name: None})))
    assert f"`bl0`: attribute `{name}` is missing" in text


def scales(*shape: int, **values: float) -> np.ndarray[Any, Any]:
    """Ones, but for the values at flat positions `at_<i>`."""
    array = np.ones(shape, np.float32)
    for at, value in values.items():
        array.flat[int(at.removeprefix("at_"))] = value
    return array


WRONG_INPUTS = pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("W", np.zeros((2, 8, 63), np.uint8), "W is uint8 [2, 8, 63], expected uint8 [2, 8, 64]"),
        ("W", np.zeros((2, 7, 64), np.uint8), "W is uint8 [2, 7, 64], expected uint8 [2, 8, 64]"),
        ("w_scale", scales(20), "w_scale is float32 [20], expected float32 [3, 1] or [3, 20] for N = 20"),
        ("w_scale", scales(1), "w_scale is float32 [1], expected float32 [3, 1] or [3, 20]"),
        ("w_scale", scales(), "w_scale is float32 [], expected float32 [3, 1] or [3, 20]"),
        ("w_scale", scales(2, 20), "w_scale is float32 [2, 20], expected float32 [3, 1] or [3, 20]"),
        ("w_scale", scales(4, 1), "w_scale is float32 [4, 1], expected float32 [3, 1] or [3, 20]"),
        ("w_scale", scales(3, 19), "w_scale is float32 [3, 19], expected float32 [3, 1] or [3, 20]"),
        ("w_scale", scales(3, 0), "w_scale is float32 [3, 0], expected float32 [3, 1] or [3, 20]"),
        ("w_scale", scales(0, 20), "w_scale is float32 [0, 20], expected float32 [3, 1] or [3, 20]"),
        ("w_scale", scales(3, 20, 1), "w_scale is float32 [3, 20, 1], expected float32 [3, 1] or [3, 20]"),
        ("w_scale", scales(3, 20, at_45=np.inf), "w_scale[2, 5] is inf, not finite"),
        ("w_scale", scales(3, 1, at_2=np.nan), "w_scale[2, 0] is nan, not finite"),
        ("bias", np.zeros(0, np.float32), "bias is float32 [0], expected float32 [1] or [20]"),
        ("bias", np.zeros((1, 20), np.float32), "bias is float32 [1, 20], expected float32 [1] or [20]"),
        ("bias", np.array([*[0] * 19, np.nan], np.float32), "bias[19] is nan, not finite"),
    ],
)


@WRONG_INPUTS
def test_wrong_constants_are_refused_when_the_session_is_made(
    session: Callable[..., Any], linear: Any, name: str, value: np.ndarray[Any, Any], message: str
) -> None:
    linear.inputs[name] = value
    text = refusal(lambda: session(linear.model(X)))
    assert "`bl0`: " + message in text.replace("-nan", "nan")


@WRONG_INPUTS
def test_wrong_dynamic_inputs_are_refused_at_the_call(
    session: Callable[..., Any], linear: Any, name: str, value: np.ndarray[Any, Any], message: str
) -> None:
    opened = session(linear.model(X, dynamic=[name]))
    text = refusal(lambda: opened.run(None, {"X": X, name: value}))
    assert "`bl0`: " + message in text.replace("-nan", "nan")
    fine = opened.run(None, {"X": X, name: linear.inputs[name]})[0]  # the session survives
    assert fine.shape == (2, 20)


def test_a_group_of_all_columns_has_one_scale(
    session: Callable[..., Any], ternary: Callable[..., Any]
) -> None:
    linear = ternary(K=70, N=20, group_size=70)
    linear.inputs["w_scale"] = scales(2, 20)
    text = refusal(lambda: session(linear.model(X)))
    assert "w_scale is float32 [2, 20], expected float32 [1, 1] or [1, 20]" in text


def test_x_of_another_type_is_refused(session: Callable[..., Any], linear: Any) -> None:
    assert "tensor(double)" in refusal(lambda: session(linear.model(X.astype(np.float64))))


def test_x_of_another_width_is_refused_at_the_call(session: Callable[..., Any], linear: Any) -> None:
    model = linear.model(X)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    opened = session(model)
    text = refusal(lambda: opened.run(None, {"X": np.zeros((2, 69), np.float32)}))
    assert "bitcc::TernaryLinear `bl0`: the last dimension of X is 69, expected K = 70" in text
