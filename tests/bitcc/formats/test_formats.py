"""Laws that every weight format obeys, and the bytes of the ones that files hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitcc import formats
from bitcc.errors import PackedWeightError
from bitcc.formats import FORMATS, WeightFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bitcc.formats import Order

    Array = NDArray[Any]

every_format = pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda fmt: fmt.name)
every_order = pytest.mark.parametrize("order", ["C", "F"])
sizes = st.tuples(st.integers(1, 150), st.integers(1, 400))


def weights_of(size: tuple[int, int], seed: int) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-1, 2, size).astype(np.int8)


@every_format
@given(size=sizes, seed=st.integers(0, 2**32 - 1))
def test_unpack_undoes_pack(fmt: WeightFormat, size: tuple[int, int], seed: int) -> None:
    weights = weights_of(size, seed)
    unpacked = fmt.unpack(fmt.pack(weights), *size)
    assert unpacked.dtype == np.int8
    np.testing.assert_array_equal(unpacked, weights)


@every_format
@given(size=sizes, value=st.sampled_from([-1, 0, 1]))
def test_matrices_of_one_value_survive(fmt: WeightFormat, size: tuple[int, int], value: int) -> None:
    weights = np.full(size, value, np.int8)
    np.testing.assert_array_equal(fmt.unpack(fmt.pack(weights), *size), weights)


@every_format
@given(size=sizes, seed=st.integers(0, 2**32 - 1))
@example(size=(301, 999), seed=0)  # more than are counted at a time
def test_padding_is_not_counted(fmt: WeightFormat, size: tuple[int, int], seed: int) -> None:
    weights = weights_of(size, seed)
    assert fmt.counts(fmt.pack(weights)) == tuple(np.count_nonzero(weights == w) for w in (-1, 1))


@every_format
@given(size=sizes, value=st.sampled_from([-1, 1]))
def test_no_count_is_too_small_for_what_it_counts(
    fmt: WeightFormat, size: tuple[int, int], value: int
) -> None:
    counts = {-1: 0, 1: 0} | {value: math.prod(size)}
    assert fmt.counts(fmt.pack(np.full(size, value, np.int8))) == (counts[-1], counts[1])


@every_format
@given(size=sizes)
def test_the_packed_array_has_the_shape_and_the_size_that_are_declared(
    fmt: WeightFormat, size: tuple[int, int]
) -> None:
    packed = fmt.pack(weights_of(size, 0))
    n, k = size
    assert packed.dtype == np.uint8
    assert packed.shape == fmt.packed_shape(n, k)
    assert packed.flags.c_contiguous
    assert packed.nbytes * 8 >= n * k * fmt.bits


@every_format
def test_without_padding_a_weight_takes_the_declared_bits(fmt: WeightFormat) -> None:
    n, k = 320, 320
    assert fmt.pack(weights_of((n, k), 0)).nbytes * 8 == pytest.approx(n * k * fmt.bits, rel=0.05)


@every_format
@given(size=sizes, seed=st.integers(0, 2**32 - 1))
def test_the_layout_of_the_source_does_not_matter(
    fmt: WeightFormat, size: tuple[int, int], seed: int
) -> None:
    weights = weights_of(size, seed)
    np.testing.assert_array_equal(fmt.pack(np.asfortranarray(weights)), fmt.pack(weights))
    np.testing.assert_array_equal(fmt.pack(weights[::-1]), fmt.pack(weights[::-1].copy()))


@every_format
@given(size=sizes, seed=st.integers(0, 2**32 - 1))
def test_unpack_gives_the_order_that_is_asked_for(
    fmt: WeightFormat, size: tuple[int, int], seed: int
) -> None:
    weights = weights_of(size, seed)
    by_columns = fmt.unpack(fmt.pack(weights), *size, order="F")
    assert by_columns.flags.f_contiguous
    np.testing.assert_array_equal(by_columns, weights)


@every_format
def test_two_different_matrices_have_different_bytes(fmt: WeightFormat) -> None:
    weights = weights_of((20, 70), 0)
    packed = fmt.pack(weights)
    for n, k in np.ndindex(*weights.shape):
        changed = weights.copy()
        changed[n, k] = (changed[n, k] + 2) % 3 - 1
        assert (fmt.pack(changed) != packed).sum() == 1


@every_format
@given(rows=st.lists(st.integers(1, 70), min_size=1, max_size=4), k=st.integers(1, 200))
@example(rows=[16, 32, 5], k=64)
def test_stacked_matrices_are_packed_as_one(fmt: WeightFormat, rows: list[int], k: int) -> None:
    matrices = [weights_of((n, k), seed) for seed, n in enumerate(rows)]
    stacked = fmt.stack([(fmt.pack(matrix), len(matrix)) for matrix in matrices], k)
    np.testing.assert_array_equal(stacked, fmt.pack(np.concatenate(matrices)))


NOT_TERNARY: dict[str, tuple[Array, str]] = {
    "a 2": (np.full((3, 4), 2, np.int8), "only int8 weights in {-1, 0, 1} can be packed"),
    "a -128": (np.full((3, 4), -128, np.int8), "only int8 weights in {-1, 0, 1} can be packed"),
    "float": (np.zeros((3, 4), np.float32), "only int8 weights in {-1, 0, 1} can be packed"),
    "uint8": (np.zeros((3, 4), np.uint8), "only int8 weights in {-1, 0, 1} can be packed"),
    "a vector": (np.zeros(4, np.int8), "a weight matrix of shape [4] cannot be packed"),
    "no rows": (np.zeros((0, 4), np.int8), "a weight matrix of shape [0, 4] cannot be packed"),
    "no columns": (np.zeros((4, 0), np.int8), "a weight matrix of shape [4, 0] cannot be packed"),
}


@every_format
@pytest.mark.parametrize("name", NOT_TERNARY)
def test_what_is_not_a_ternary_matrix_is_not_packed(fmt: WeightFormat, name: str) -> None:
    weights, message = NOT_TERNARY[name]
    with pytest.raises(PackedWeightError) as caught:
        fmt.pack(weights)
    assert message in str(caught.value)


@every_format
def test_packed_weights_of_another_shape_are_refused(fmt: WeightFormat) -> None:
    packed = fmt.pack(weights_of((20, 70), 0))
    for wrong in (packed[:-1], packed.reshape(-1), np.repeat(packed, 2, axis=0)):
        with pytest.raises(PackedWeightError) as caught:
            fmt.unpack(wrong, 20, 70)
        assert f"packed weights are uint8 {list(wrong.shape)}, expected uint8" in str(caught.value)
        assert "for N = 20, K = 70" in str(caught.value)


@every_format
@pytest.mark.parametrize("size", [(0, 64), (16, 0), (0, 0), (-16, -64)])
def test_packed_weights_of_no_size_are_refused(fmt: WeightFormat, size: tuple[int, int]) -> None:
    shape = [max(0, length) for length in fmt.packed_shape(*size)]
    with pytest.raises(PackedWeightError, match=rf"N = {size[0]}, K = {size[1]}: there is no weight"):
        fmt.unpack(np.zeros(shape, np.uint8), *size)


@every_format
def test_packed_weights_of_another_type_are_refused(fmt: WeightFormat) -> None:
    packed = fmt.pack(weights_of((20, 70), 0)).view(np.int8)
    with pytest.raises(PackedWeightError, match="packed weights are int8"):
        fmt.unpack(packed, 20, 70)


@every_format
@every_order
@pytest.mark.parametrize(("n", "k"), [(19, 70), (20, 69)])
def test_padding_that_holds_a_weight_is_refused(fmt: WeightFormat, n: int, k: int, order: Order) -> None:
    packed = fmt.pack(np.ones((20, 70), np.int8))
    with pytest.raises(PackedWeightError, match="the padding of the packed weights is not zero"):
        fmt.unpack(packed, n, k, order)


@every_order
@pytest.mark.parametrize("shift", [0, 2, 4, 6])
@pytest.mark.parametrize("where", [(0, 0, 0), (1, 3, 63), (0, 2, 17)])
def test_the_code_that_no_weight_has_is_refused_anywhere(
    where: tuple[int, int, int], shift: int, order: Order
) -> None:
    packed = FORMATS["t2"].pack(weights_of((32, 64), 0))
    packed[where] |= 3 << shift
    with pytest.raises(PackedWeightError, match="hold the code 3, which no ternary weight has"):
        FORMATS["t2"].unpack(packed, 32, 64, order)


def test_the_bytes_of_t2_version_1_never_change() -> None:
    """Files hold them. The weights are -1, 0, 1 in turn as 7 n + k counts up."""
    n, k = np.indices((17, 65))
    packed = FORMATS["t2"].pack(((7 * n + k) % 3 - 1).astype(np.int8))
    assert packed.shape == (2, 8, 64)
    assert packed[0, 0, :8].tobytes().hex() == "2449922449922449"
    assert packed[0, 4, :8].tobytes().hex() == "5555555556555555"
    assert packed[1, 0, :8].tobytes().hex() == "4992244955555555"
    assert packed[1, 7].tobytes().hex() == "55" * 64


@given(size=st.tuples(st.integers(1, 40), st.integers(1, 140)), seed=st.integers(0, 2**32 - 1))
def test_t2_stands_where_its_description_says(size: tuple[int, int], seed: int) -> None:
    weights = weights_of(size, seed)
    packed = FORMATS["t2"].pack(weights)
    for n, k in np.random.default_rng(seed).integers(0, size, (20, 2)):
        vector, i, kk = k // 16, k % 16 // 4, k % 4
        byte = packed[n // 16, vector, 4 * (n % 16) + kk]
        assert byte >> 2 * i & 3 == weights[n, k] + 1


def test_a_byte_of_t2_holds_four_columns_that_are_four_apart() -> None:
    weights = np.zeros((16, 64), np.int8)
    weights[5, [18, 22, 26, 30]] = [1, -1, 0, 1]  # vector 1, kk 2, i = 0 to 3
    packed = FORMATS["t2"].pack(weights)
    assert packed[0, 1, 4 * 5 + 2] == 0b10_01_00_10
    assert (packed == 0b01_01_01_01).sum() == packed.size - 1


@pytest.mark.parametrize("byte", [243, 250, 255])
@pytest.mark.parametrize("where", [(0, 0, 0), (1, 3, 63), (0, 2, 17)])
def test_a_byte_that_no_five_weights_have_is_refused_anywhere(where: tuple[int, int, int], byte: int) -> None:
    packed = FORMATS["t5"].pack(weights_of((32, 80), 0))
    packed[where] = byte
    with pytest.raises(PackedWeightError, match=f"hold the byte {byte}, which no ternary weights have"):
        FORMATS["t5"].unpack(packed, 32, 80)


@every_format
@every_order
def test_every_byte_means_its_weights_or_is_refused(fmt: WeightFormat, order: Order) -> None:
    """What a byte means is also written as a table, for kernels in standard ops."""
    count = fmt.byte_weights.shape[1]
    written = {tuple(row): byte for byte, row in reversed(list(enumerate(fmt.byte_weights.tolist())))}
    for byte, row in enumerate(fmt.byte_weights):
        packed = np.full(fmt.packed_shape(16, fmt.columns), byte, np.uint8)
        if max(row) > 1 or written[tuple(row)] != byte:
            with pytest.raises(PackedWeightError):
                fmt.unpack(packed, 16, fmt.columns, order)
            continue
        columns = np.tile(np.repeat(row, 4), fmt.columns // (4 * count))
        weights = fmt.unpack(packed, 16, fmt.columns, order)
        np.testing.assert_array_equal(weights, np.tile(columns, (16, 1)))
        np.testing.assert_array_equal(fmt.pack(weights), packed)


def test_the_bytes_of_t5_version_1_never_change() -> None:
    """Files hold them. The weights are -1, 0, 1 in turn as 7 n + k counts up."""
    n, k = np.indices((17, 41))
    packed = FORMATS["t5"].pack(((7 * n + k) % 3 - 1).astype(np.int8))
    assert packed.shape == (2, 3, 64)
    assert packed[0, 0, :8].tobytes().hex() == "4fae3b4fae3b4fae"
    assert packed[0, 2, :8].tobytes().hex() == "68686868ca686868"
    assert packed[1, 0, :8].tobytes().hex() == "ae3b4fae68686868"
    assert packed[1, 2].tobytes().hex() == "ca" + "68" * 63


@given(size=st.tuples(st.integers(1, 40), st.integers(1, 140)), seed=st.integers(0, 2**32 - 1))
def test_t5_stands_where_its_description_says(size: tuple[int, int], seed: int) -> None:
    weights = weights_of(size, seed)
    packed = FORMATS["t5"].pack(weights)
    for n, k in np.random.default_rng(seed).integers(0, size, (20, 2)):
        vector, i, kk = k // 20, k % 20 // 4, k % 4
        byte = int(packed[n // 16, vector, 4 * (n % 16) + kk])
        v, last = (byte % 64, byte // 64) if byte < 192 else (64 + (byte - 192) // 3, byte % 3)
        assert (v // 27, v // 9 % 3, v // 3 % 3, v % 3, last)[i] == weights[n, k] + 1


def test_all_243_bytes_of_t5_are_used() -> None:
    every = np.stack(np.meshgrid(*[[-1, 0, 1]] * 5), -1).reshape(243, 5).astype(np.int8)
    columns = np.zeros((243, 20), np.int8)
    columns[:, ::4] = every
    packed = FORMATS["t5"].pack(columns)[:, 0, ::4].reshape(-1)[:243]
    np.testing.assert_array_equal(np.sort(packed), np.arange(243))


@every_format
def test_the_weights_of_a_byte_are_in_the_order_of_their_columns(fmt: WeightFormat) -> None:
    count = fmt.byte_weights.shape[1]
    weights = np.array([[0, 1, -1, 1, 1][:count]], np.int8)
    columns = np.zeros((1, 4 * count), np.int8)
    columns[:, ::4] = weights
    np.testing.assert_array_equal(fmt.byte_weights[fmt.pack(columns)[0, 0, 0]], weights[0])


def test_an_unknown_format_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(PackedWeightError) as caught:
        formats.get("t6", 1)
    assert str(caught.value) == "weight format `t6` version 1 is unknown"
    assert "this bitcc knows t2 version 1, t5 version 1" in caught.value.hint


def test_another_version_of_a_format_is_refused() -> None:
    with pytest.raises(PackedWeightError, match="weight format `t2` version 2 is unknown"):
        formats.get("t2", 2)


@every_format
def test_a_format_is_found_by_its_name_and_version(fmt: WeightFormat) -> None:
    assert formats.get(fmt.name, fmt.layout_version) is fmt
