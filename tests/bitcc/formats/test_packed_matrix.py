"""Laws of matrices that are packed and unpacked part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitcc.errors import PackedWeightError
from bitcc.formats import FORMATS, PackedMatrix, WeightFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.formats import Order

every_format = pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
every_other_format = pytest.mark.parametrize("other", FORMATS.values(), ids=lambda fmt: fmt.name)
sizes = st.tuples(st.integers(1, 150), st.integers(1, 400))
every_order = pytest.mark.parametrize("order", ["C", "F"])
orders = st.sampled_from(["C", "F"])
ALL = slice(None)


def weights_of(size: tuple[int, int], seed: int = 0) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-1, 2, size).astype(np.int8)


def packed(weights: NDArray[np.int8], fmt: WeightFormat) -> PackedMatrix:
    return PackedMatrix(fmt, (weights.shape[0], weights.shape[1]), fmt.pack(weights))


@every_format
@given(size=sizes, tiles=st.integers(1, 4), order=orders)
def test_matrices_written_by_rows_or_columns_are_those_packed_at_once(
    fmt: WeightFormat, size: tuple[int, int], tiles: int, order: Order
) -> None:
    weights = weights_of(size)
    by_rows, by_columns = (PackedMatrix.empty(fmt, size) for _ in range(2))
    for start in range(0, size[0], tiles * fmt.rows):
        rows = slice(start, start + tiles * fmt.rows)
        by_rows.write(rows, ALL, np.array(weights[rows], order=order))
    for start in range(0, size[1], tiles * fmt.columns):
        columns = slice(start, start + tiles * fmt.columns)
        by_columns.write(ALL, columns, np.array(weights[:, columns], order=order))
    for written in (by_rows, by_columns):
        np.testing.assert_array_equal(written.data, fmt.pack(weights))


@every_format
@given(size=sizes, data=st.data(), order=orders)
def test_any_part_can_be_read(
    fmt: WeightFormat, size: tuple[int, int], data: st.DataObject, order: Order
) -> None:
    weights = weights_of(size)
    rows, columns = (
        slice(*sorted(data.draw(st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True))))
        for side in size
    )
    part = packed(weights, fmt).read(rows, columns, order)
    assert part.dtype == np.int8
    np.testing.assert_array_equal(part, weights[rows, columns])
    np.testing.assert_array_equal(packed(weights, fmt).read(order=order), weights)


@every_format
@given(size=sizes, data=st.data(), order=orders)
def test_a_part_holds_the_weights_that_are_read_from_it_and_no_others(
    fmt: WeightFormat, size: tuple[int, int], data: st.DataObject, order: Order
) -> None:
    """After any byte was changed, which may be one of no weights, or padding."""
    weights, matrix = weights_of(size), packed(weights_of(size), fmt)
    tiles = data.draw(st.integers(1, 4))
    part = slice(0, tiles * fmt.rows), ALL
    if order == "F":
        part = ALL, slice(0, tiles * fmt.columns)
    some = np.array(weights[part], order=order)
    assert matrix.holds(*part, some)
    place = tuple(data.draw(st.integers(0, side - 1)) for side in matrix.data.shape)
    matrix.data[place] = data.draw(st.integers(0, 255))
    try:
        is_same = np.array_equal(matrix.read(*part), some)
    except PackedWeightError:
        is_same = False
    assert matrix.holds(*part, some) is is_same


@every_format
@every_order
def test_every_other_byte_is_told_from_that_of_the_weights(fmt: WeightFormat, order: Order) -> None:
    weights = np.array(weights_of((16, fmt.columns)), order=order)
    matrix = packed(weights, fmt)
    right = int(matrix.data[0, 0, 5])
    for byte in range(256):
        matrix.data[0, 0, 5] = byte
        assert matrix.holds(ALL, ALL, weights) is (byte == right)


@every_format
def test_a_part_of_a_tile_is_not_compared(fmt: WeightFormat) -> None:
    weights = weights_of((20, 70))
    with pytest.raises(ValueError, match="do not fill tiles of"):
        packed(weights, fmt).holds(slice(1, 17), ALL, weights[1:17])


@every_format
@every_other_format
@given(size=sizes)
@example(size=(40, 20000))  # more than are packed at a time
def test_every_format_is_made_of_every_other(
    fmt: WeightFormat, other: WeightFormat, size: tuple[int, int]
) -> None:
    weights = weights_of(size)
    made = packed(weights, other).packed_as(fmt)
    assert made.fmt is fmt
    np.testing.assert_array_equal(made.data, fmt.pack(weights))


@every_format
@every_other_format
def test_what_no_packer_writes_is_not_packed_in_another_format(
    fmt: WeightFormat, other: WeightFormat
) -> None:
    matrix = packed(weights_of((48, 70)), other)
    matrix.data[1, 0, 0] = 255
    if fmt is other:
        assert matrix.packed_as(fmt) is matrix
        return
    with pytest.raises(PackedWeightError):
        matrix.packed_as(fmt)


@every_format
@pytest.mark.parametrize(
    ("rows", "columns"), [((1, 17), (0, 70)), ((0, 15), (0, 70)), ((0, 20), (1, 70)), ((0, 20), (0, 19))]
)
def test_a_part_of_a_tile_is_not_written(
    fmt: WeightFormat, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    matrix = packed(weights_of((20, 70)), fmt)
    before = matrix.data.copy()
    with pytest.raises(ValueError, match="do not fill tiles of"):
        matrix.write(
            slice(*rows), slice(*columns), np.zeros((20, 70), np.int8)[slice(*rows), slice(*columns)]
        )
    np.testing.assert_array_equal(matrix.data, before)


@every_format
def test_weights_of_another_shape_are_not_written(fmt: WeightFormat) -> None:
    with pytest.raises(ValueError, match=r"weights \[16, 69\] do not fill tiles of"):
        packed(weights_of((20, 70)), fmt).write(slice(0, 16), ALL, np.zeros((16, 69), np.int8))


@every_format
def test_data_of_another_shape_is_refused(fmt: WeightFormat) -> None:
    with pytest.raises(PackedWeightError, match="packed weights are uint8"):
        PackedMatrix(fmt, (20, 700), fmt.pack(weights_of((20, 70))))


@every_format
def test_a_byte_that_no_packer_writes_is_refused_where_it_is(fmt: WeightFormat) -> None:
    matrix = packed(weights_of((48, 70)), fmt)
    matrix.data[1, 0, 0] = 255
    np.testing.assert_array_equal(matrix.read(slice(0, 16)), weights_of((48, 70))[:16])
    with pytest.raises(PackedWeightError):
        matrix.read(slice(16, 17))
