"""Every encoder gives what msgpack gives, at every width; every reader takes it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoloadd_protocol.decoding import bin_span, decode_int, str_span
from autoloadd_protocol.encoding import (
    FALSE,
    NIL,
    TRUE,
    array_header,
    bin_header,
    encode_int,
    encode_optional_bin,
    encode_optional_int,
    encode_str,
    encode_uint,
    map_header,
    str_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = st.one_of(
    st.sampled_from([0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536, 2**32 - 1]),
    st.integers(0, 2**32 - 1),
)
BOUNDARIES = [
    number
    for bits in (5, 7, 8, 15, 16, 31, 32, 63, 64)
    for number in (2**bits - 1, 2**bits, -(2**bits), -(2**bits) - 1)
    if -(2**63) <= number < 2**64
]


@given(st.integers(0, 2**64 - 1))
def test_an_unsigned_number_has_the_form_that_msgpack_gives(value: int) -> None:
    assert encode_uint(value) == msgpack.packb(value)


@given(st.one_of(st.integers(-(2**63), 2**64 - 1), st.sampled_from(BOUNDARIES)))
def test_a_number_has_the_form_that_msgpack_gives_and_is_read_back(value: int) -> None:
    encoded = encode_int(value)
    assert encoded == msgpack.packb(value)
    assert decode_int(b"\xc0" + encoded + b"\xc0", 1) == (value, 1 + len(encoded))
    assert decode_int(memoryview(encoded), 0) == (value, len(encoded))


@pytest.mark.parametrize("value", BOUNDARIES)
def test_a_number_at_a_width_has_the_form_that_msgpack_gives(value: int) -> None:
    assert encode_int(value) == msgpack.packb(value)


@pytest.mark.parametrize("value", [-1, 2**64])
def test_a_number_that_is_no_u64_is_refused(value: int) -> None:
    with pytest.raises(OverflowError):
        encode_uint(value)


@pytest.mark.parametrize("value", [-(2**63) - 1, 2**64])
def test_a_number_of_more_than_64_bits_is_refused(value: int) -> None:
    with pytest.raises(OverflowError):
        encode_int(value)


def _array_header(count: int) -> bytes:
    header: bytes = msgpack.Packer().pack_array_header(count)
    return header


def _map_header(count: int) -> bytes:
    header: bytes = msgpack.Packer().pack_map_header(count)
    return header


@given(SIZES)
def test_containers_begin_as_msgpack_begins_them(count: int) -> None:
    assert array_header(count) == _array_header(count)
    assert map_header(count) == _map_header(count)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65535, 65536])
@pytest.mark.parametrize(
    ("header", "value", "read"),
    [(str_header, "a", str_span), (bin_header, b"a", bin_span)],
    ids=["str", "bin"],
)
def test_texts_and_bytes_begin_as_msgpack_begins_them(
    size: int,
    header: Callable[[int], bytes],
    value: str | bytes,
    read: Callable[[bytes, int], tuple[int, int]],
) -> None:
    packed = msgpack.packb(value * size)
    assert header(size) + b"a" * size == packed
    assert read(packed, 0) == (len(packed) - size, size)


@given(st.text())
@example("\x00")
def test_a_str_has_the_form_that_msgpack_gives(text: str) -> None:
    assert encode_str(text.encode()) == msgpack.packb(text)


@given(st.none() | st.binary(max_size=300))
def test_an_optional_bin_has_the_form_that_msgpack_gives(value: bytes | None) -> None:
    assert encode_optional_bin(value) == msgpack.packb(value)


@given(st.none() | st.integers(-(2**63), 2**63 - 1))
def test_an_optional_time_has_the_form_that_msgpack_gives(value: int | None) -> None:
    assert encode_optional_int(value) == msgpack.packb(value)


def test_the_constants_are_what_msgpack_gives() -> None:
    assert tuple(map(msgpack.packb, (None, True, False))) == (NIL, TRUE, FALSE)


@pytest.mark.parametrize("value", [None, True, "a", b"b", [], {}, 1.5])
def test_what_is_no_number_is_refused_as_one(value: object) -> None:
    with pytest.raises(ValueError, match="begins no integer"):
        decode_int(msgpack.packb(value), 0)


@pytest.mark.parametrize("value", [None, True, 7, [], {}, 1.5])
def test_what_is_neither_text_nor_bytes_has_no_length(value: object) -> None:
    packed = msgpack.packb(value)
    assert str_span(packed, 0) == (0, -1)
    assert bin_span(packed, 0) == (0, -1)


def test_a_text_is_no_bytes_and_bytes_are_no_text() -> None:
    assert bin_span(msgpack.packb("a" * 40), 0) == (0, -1)
    assert str_span(msgpack.packb(b"a" * 40), 0) == (0, -1)


def test_reading_behind_the_end_is_an_index_error() -> None:
    for read in (decode_int, str_span, bin_span):
        with pytest.raises(IndexError):
            read(b"\xc0", 1)
