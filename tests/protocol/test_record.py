"""A record is the result of `get` behind a checksum, and every part is found where it lies."""

from __future__ import annotations

import zlib

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoloadd_protocol.encoding import encode_optional_bin
from autoloadd_protocol.record import (
    PREFIX_BYTES,
    Record,
    body_bytes,
    body_start,
    encode_record,
    fingerprint_of,
    name_span,
    parse_record,
)

from ..records import is_intact

NAMES = st.text(min_size=1, max_size=300).map(str.encode)
TIMES = st.integers(-(2**63), 2**63 - 1)
FINGERPRINTS = st.none() | st.binary(min_size=1, max_size=300)


@given(NAMES, st.binary(max_size=300), FINGERPRINTS, TIMES, TIMES)
@example(b"n" * 1024, b"x" * 65536, b"p" * 1024, -(2**63), 2**63 - 1)
@example(b"n" * 31, b"x" * 65535, None, 0, 0)
def test_every_part_of_a_record_is_found(
    name: bytes, blob: bytes, fingerprint: bytes | None, mtime: int, cached_at: int
) -> None:
    record = encode_record(name, blob, fingerprint, mtime, cached_at)
    body = bytes(record.buffer[record.start : record.end])
    assert body == msgpack.packb([name.decode(), blob, fingerprint, mtime, cached_at])
    assert record.buffer[record.blob_start : record.blob_end] == blob
    assert record.binary_mtime_ns == mtime
    assert record.blob_bytes == len(blob)
    assert fingerprint_of(record) == fingerprint
    first, last = name_span(record)
    assert record.buffer[first:last] == name
    assert body_start(len(name), record.blob_start, record.blob_bytes) == record.start
    assert body_bytes(record.buffer, record.start) == len(body)
    assert is_intact(record)
    assert record.stored() == record.buffer
    assert record.stored_bytes == len(record.buffer) == PREFIX_BYTES + len(body)


@given(NAMES, st.binary(max_size=300), FINGERPRINTS, TIMES, TIMES, st.binary(max_size=20))
def test_a_record_is_read_from_the_middle_of_a_buffer(
    name: bytes, blob: bytes, fingerprint: bytes | None, mtime: int, cached_at: int, around: bytes
) -> None:
    made = encode_record(name, blob, fingerprint, mtime, cached_at)
    buffer = memoryview(around + made.stored() + around)
    start = len(around) + PREFIX_BYTES
    record = parse_record(buffer, start, start + made.end - made.start)
    assert record == Record(
        buffer,
        made.start + len(around),
        made.end + len(around),
        mtime,
        made.blob_start + len(around),
        made.blob_end + len(around),
    )
    assert fingerprint_of(record) == fingerprint
    assert record.stored() == made.stored()
    assert is_intact(record)


def test_the_prefix_is_checksum_and_length_in_little_endian() -> None:
    record = encode_record(b"f", b"x", None, 0, 0)
    body = bytes.fromhex("95 a166 c40178 c0 00 00")
    prefix = zlib.crc32(body).to_bytes(4, "little") + len(body).to_bytes(4, "little")
    assert record.buffer == prefix + body


def test_every_flipped_bit_is_found() -> None:
    record = encode_record(b"_git", b"compiled", b"fingerprint", 1, 2)
    for bit in range(8 * len(record.buffer)):
        damaged = bytearray(record.buffer)
        damaged[bit // 8] ^= 1 << bit % 8
        assert not is_intact(record._replace(buffer=bytes(damaged)))


def test_a_record_that_ends_early_is_not_intact() -> None:
    record = encode_record(b"_git", b"compiled", b"fingerprint", 1, 2)
    for end in range(PREFIX_BYTES, len(record.buffer)):
        assert not is_intact(record._replace(buffer=record.buffer[:end]))


@pytest.mark.parametrize(
    ("stored", "asked", "fresh"),
    [(5, None, True), (5, 4, True), (5, 5, True), (5, 6, False), (-1, 0, False), (0, -1, True)],
)
def test_an_entry_is_fresh_if_its_binary_is_not_older(
    stored: int, asked: int | None, fresh: bool
) -> None:
    assert encode_record(b"f", b"x", None, stored, 0).is_fresh(asked, None) is fresh


@pytest.mark.parametrize(
    ("stored", "asked", "fresh"),
    [
        (None, None, True),
        (b"p", None, True),
        (b"p", b"p", True),
        (b"p", b"q", False),
        (None, b"p", False),
        (b"pq", b"p", False),
        (b"p", b"pq", False),
        (b"p" * 255, b"p" * 255, True),
        (b"p" * 256, b"p" * 255, False),
        (b"p" * 256, b"p" * 256, True),
    ],
)
def test_an_entry_is_fresh_if_its_fingerprint_is_the_same(
    stored: bytes | None, asked: bytes | None, fresh: bool
) -> None:
    record = encode_record(b"f", b"x", stored, 0, 0)
    encoded = None if asked is None else encode_optional_bin(asked)
    assert record.is_fresh(None, encoded) is fresh
    view = record._replace(buffer=memoryview(record.buffer))
    assert view.is_fresh(None, encoded) is fresh


def test_an_entry_is_stale_if_one_of_both_differs() -> None:
    record = encode_record(b"f", b"x", b"p", 5, 0)
    assert record.is_fresh(5, encode_optional_bin(b"p"))
    assert not record.is_fresh(6, encode_optional_bin(b"p"))
    assert not record.is_fresh(5, encode_optional_bin(b"q"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (msgpack.packb([b"f", b"x", None, 0, 0]), "name"),
        (msgpack.packb(["f", "x", None, 0, 0]), "blob"),
        (msgpack.packb(["f", b"x", None, "0", 0]), "integer"),
    ],
)
def test_what_is_no_body_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_record(body, 0, len(body))


@given(st.binary(max_size=60))
def test_whatever_the_bytes_are_nothing_else_is_raised(body: bytes) -> None:
    try:
        record = parse_record(body, 0, len(body))
    except (ValueError, IndexError):
        return
    assert isinstance(record, Record)
