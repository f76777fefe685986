"""Every model that the library cannot run rightly is refused, in words that name node and value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitcc.ops import BitLinear

if TYPE_CHECKING:
    from collections.abc import Callable

X = np.zeros((2, 70), np.float32)
NEWER = "was the model made by a newer bitcc?"


def refusal(opened: Callable[[], Any]) -> str:
    with pytest.raises(Exception, match="ONNXRuntimeError") as caught:
        opened()
    return str(caught.value)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("weight_format", "t6", f"`weight_format` is `t6`, known is `t2` and `t5`; {NEWER}"),
        ("weight_format", "t" * 70, f"`weight_format` is `...`, known is `t2` and `t5`; {NEWER}"),
        ("layout_version", 2, f"`layout_version` is 2, known are 1 to 1; {NEWER}"),
        ("layout_version", -(2**63), f"`layout_version` is {-(2**63)}, known are 1 to 1; {NEWER}"),
        ("norm", 2, f"`norm` is 2, known are 0 to 1; {NEWER}"),
        ("norm_eps", -1.0, "`norm_eps` is -1, known are 0 to 1e+30"),
        ("act_scale", 8, f"`act_scale` is 8, known are 0 to 7; {NEWER}"),
        ("act_scale", -1, f"`act_scale` is -1, known are 0 to 7; {NEWER}"),
        ("act_scope", 2, f"`act_scope` is 2, known are 0 to 1; {NEWER}"),
        ("act_type", 11, f"`act_type` is 11, known are 1, 10 and 16; {NEWER}"),
        ("act_type", 0, f"`act_type` is 0, known are 1, 10 and 16; {NEWER}"),
        ("bias_before_scale", 2, f"`bias_before_scale` is 2, known are 0 to 1; {NEWER}"),
        ("K", 0, "`K` is 0, known are 1 to 65536"),
        ("K", 65537, "`K` is 65537, known are 1 to 65536"),
        ("N", 0, "`N` is 0, known are 1 to"),
        ("N", 2**62, f"`N` is {2**62}, known are 1 to"),
        ("N", 2**31 - 16, f"`N` is {2**31 - 16}, known are 1 to {2**31 - 17}"),  # rows are padded
        ("act_floor", float("nan"), "`act_floor` is"),
        ("act_floor", -1.0, "`act_floor` is -1, known are 0 to 1e+30"),
        ("act_eps", float("inf"), "`act_eps` is inf, known are 0 to 1e+30"),
        ("qmax", 0.0, "`qmax` is 0, known are 1 to"),
        ("act_min", -129.0, "`act_min` is -129, known are -128 to 127"),
        ("act_max", 1.5, "`act_max` is 1.5, not a whole number"),
        ("act_max", -128.0, "act_min = -128 is not below act_max = -128"),
    ],
)
def test_unknown_attribute_values_are_named(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    attribute: str,
    value: Any,
    message: str,
) -> None:
    linear = layer(N=20, K=70)
    text = refusal(lambda: session(linear.model(X, attributes={attribute: value})))
    assert "bitcc::BitLinear `bl0`: " in text
    assert message in text


@pytest.mark.parametrize("name", BitLinear(K=70, N=20).attributes())
def test_no_attribute_may_be_missing(
    session: Callable[..., Any], layer: Callable[..., Any], name: str
) -> None:
    linear = layer(N=20, K=70)
    text = refusal(lambda: session(linear.model(X, attributes={name: None})))
    assert f"`bl0`: attribute `{name}` is missing" in text


def test_an_attribute_of_another_type_is_refused(
    session: Callable[..., Any], layer: Callable[..., Any]
) -> None:
    linear = layer(N=20, K=70)
    text = refusal(lambda: session(linear.model(X, attributes={"qmax": 127})))
    assert "attribute `qmax` is missing or is no float" in text


WRONG_INPUTS = pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "W",
            np.zeros((2, 8, 63), np.uint8),
            "W is uint8 [2, 8, 63], expected uint8 [2, 8, 64] for N = 20, K = 70",
        ),
        (
            "W",
            np.zeros((2, 7, 64), np.uint8),
            "W is uint8 [2, 7, 64], expected uint8 [2, 8, 64] for N = 20, K = 70",
        ),
        ("W", np.zeros((3, 8, 64), np.uint8), "W is uint8 [3, 8, 64], expected uint8 [2, 8, 64]"),
        ("W", np.zeros((1024,), np.uint8), "W is uint8 [1024], expected uint8 [2, 8, 64]"),
        ("W", np.zeros((2, 8, 64, 1), np.uint8), "W is uint8 [2, 8, 64, 1], expected uint8 [2, 8, 64]"),
        ("W", np.zeros((), np.uint8), "W is uint8 [], expected uint8 [2, 8, 64]"),
        ("W", np.zeros((1,) * 33, np.uint8), "W has 33 dimensions, more than 32"),
        ("w_scale", np.ones(2, np.float32), "w_scale is float32 [2], expected float32 [1] or [20]"),
        ("w_scale", np.ones((1, 1), np.float32), "w_scale is float32 [1, 1], expected float32 [1]"),
        ("w_scale", np.full(20, np.inf, np.float32), "w_scale[0] is inf, not finite"),
        ("bias", np.zeros(0, np.float32), "bias is float32 [0], expected float32 [1] or [20]"),
        (
            "bias",
            np.array([*[0] * 19, np.nan], np.float32),
            "bias[19] is nan, not finite",
        ),
        ("gain", np.ones(70, np.float32), "gain is float32 [70], expected float32 [1] for N = 20"),
        ("gain", np.full(1, 2, np.float32), "gain is 2, expected 1 without a norm"),
        ("gain", np.full(1, np.nan, np.float32), "gain[0] is nan, not finite"),
    ],
)


@WRONG_INPUTS
def test_wrong_constants_are_refused_when_the_session_is_made(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    name: str,
    value: np.ndarray[Any, Any],
    message: str,
) -> None:
    linear = layer(N=20, K=70)
    linear.inputs[name] = value
    text = refusal(lambda: session(linear.model(X)))
    assert "`bl0`: " + message in text.replace("-nan", "nan")


@WRONG_INPUTS
def test_wrong_dynamic_inputs_are_refused_at_the_call(
    session: Callable[..., Any],
    layer: Callable[..., Any],
    name: str,
    value: np.ndarray[Any, Any],
    message: str,
) -> None:
    linear = layer(N=20, K=70)
    opened = session(linear.model(X, dynamic=[name]))
    text = refusal(lambda: opened.run(None, {"X": X, name: value}))
    assert "`bl0`: " + message in text.replace("-nan", "nan")
    fine = opened.run(None, {"X": X, name: linear.inputs[name]})[0]  # the session survives
    assert fine.shape == (2, 20)


@pytest.mark.parametrize(("name", "element"), [("W", np.int8), ("bias", np.float64)])
def test_wrong_types_are_refused(
    session: Callable[..., Any], layer: Callable[..., Any], name: str, element: Any
) -> None:
    linear = layer(N=20, K=70)
    linear.inputs[name] = linear.inputs[name].astype(element)
    assert "is invalid" in refusal(lambda: session(linear.model(X)))


def test_x_of_another_type_is_refused(session: Callable[..., Any], layer: Callable[..., Any]) -> None:
    linear = layer(N=20, K=70)
    assert "tensor(double)" in refusal(lambda: session(linear.model(X.astype(np.float64))))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 69), "the last dimension of X is 69, expected K = 70"),
        ((2, 0), "the last dimension of X is 0, expected K = 70"),
        ((), "X is a scalar, expected [..., 70]"),
    ],
)
def test_x_of_another_width_is_refused_at_the_call(
    session: Callable[..., Any], layer: Callable[..., Any], shape: tuple[int, ...], message: str
) -> None:
    linear = layer(N=20, K=70)
    model = linear.model(X)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    opened = session(model)
    assert message in refusal(lambda: opened.run(None, {"X": np.zeros(shape, np.float32)}))
