"""A journal's frames: what goes in comes out, and nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoloadd_daemon.errors import DamageError
from autoloadd_daemon.storage.records import (
    BULK,
    CLEAR,
    DELETE,
    FRAME,
    FRAME_BYTES,
    HEADER_BYTES,
    KIND_AT,
    PUT,
    BulkFile,
    JournalHeader,
    encode_bulk,
    encode_clear,
    encode_delete,
    encode_put,
    parse_frame,
    parse_journal_header,
    parse_records,
    parts_bytes,
)
from autoloadd_protocol.limits import PRODUCER_TEXT_BYTES
from autoloadd_protocol.producer import Producer

from ..harness import Item, item_of, record_of, records_of

if TYPE_CHECKING:
    from collections.abc import Sequence

U64 = st.integers(1, 2**64 - 1)
NAMES = st.text(min_size=1, max_size=40).map(str.encode)
TIMES = st.integers(-(2**63), 2**63 - 1)
ITEMS = st.builds(
    Item, st.binary(max_size=300), st.none() | st.binary(min_size=1, max_size=300), TIMES
)
SMALL = Item(b"blob", b"print", -5)


def joined(parts: Sequence[bytes | memoryview]) -> bytes:
    return b"".join(parts)


@given(items=st.dictionaries(NAMES, ITEMS, max_size=6), generation=U64, synced=U64)
def test_a_put_comes_back(items: dict[bytes, Item], generation: int, synced: int) -> None:
    records = [record for _, record in records_of(items)]
    parts = encode_put(generation, synced, records)
    data = joined(parts)
    frame = parse_frame(b"before" + data + b"behind", 6)
    assert (frame.kind, frame.generation, frame.synced) == (PUT, generation, synced)
    assert frame.end == 6 + len(data) == 6 + parts_bytes(parts)
    assert {name: item_of(record) for name, record in frame.records} == items
    assert [name for name, _ in frame.records] == list(items)
    assert frame.bulk is None
    assert frame.names == []


@given(names=st.lists(NAMES), generation=U64)
def test_a_delete_comes_back(names: list[bytes], generation: int) -> None:
    data = joined(encode_delete(generation, 0, names))
    frame = parse_frame(data, 0)
    assert (frame.kind, frame.generation, frame.end) == (DELETE, generation, len(data))
    assert frame.names == names
    assert frame.records == []


def test_a_clear_comes_back() -> None:
    data = joined(encode_clear(3, 700))
    assert len(data) == FRAME_BYTES
    assert parse_frame(data, 0) == (CLEAR, 3, 700, FRAME_BYTES, [], [], None)


@pytest.mark.parametrize("built_at_ns", [None, 0, -1, 2**62])
def test_a_bulk_comes_back(built_at_ns: int | None) -> None:
    bulk = BulkFile("replace", 7, 2**33, 2**32 - 1, built_at_ns)
    frame = parse_frame(joined(encode_bulk(3, 0, bulk)), 0)
    assert frame.kind == BULK
    assert frame.bulk == bulk


@pytest.mark.parametrize("sizes", [(1, 0), (39, 0xFF), (40, 0x100), (1024, 0xFFFF), (256, 0x10000)])
def test_every_form_of_lengths_comes_back(sizes: tuple[int, int]) -> None:
    name, item = b"n" * sizes[0], Item(b"x" * sizes[1], b"f" * max(sizes[0], 1), 2**63 - 1)
    frame = parse_frame(joined(encode_put(1, 0, [record_of(name, item)])), 0)
    assert [(found, item_of(record)) for found, record in frame.records] == [(name, item)]


FRAMES = {
    "put": joined(encode_put(5, 512, [record_of(b"name", SMALL), record_of(b"b", SMALL)])),
    "delete": joined(encode_delete(5, 512, [b"name", b"b"])),
    "clear": joined(encode_clear(5, 512)),
    "bulk": joined(encode_bulk(5, 512, BulkFile("merge", 1, 10, 3, None))),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_cut_frame_is_damage(kind: str) -> None:
    data = FRAMES[kind]
    for length in range(len(data)):
        with pytest.raises(DamageError):
            parse_frame(data[:length], 0)


@pytest.mark.parametrize("kind", FRAMES)
def test_a_flipped_bit_is_damage(kind: str) -> None:
    data = FRAMES[kind] + bytes(64)
    for at in range(len(FRAMES[kind])):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            with pytest.raises(DamageError):
                parse_frame(bytes(flipped), 0)


@pytest.mark.parametrize("kind", FRAMES)
def test_the_kind_lies_where_recovery_looks_for_it(kind: str) -> None:
    number = {"put": PUT, "delete": DELETE, "clear": CLEAR, "bulk": BULK}[kind]
    assert FRAMES[kind][KIND_AT : KIND_AT + 4] == number.to_bytes(4, "little")


@pytest.mark.parametrize("above", [5, 6, 2**64 - 1])
def test_an_older_frame_is_out_of_order(above: int) -> None:
    assert parse_frame(FRAMES["clear"], 0, above=4).generation == 5
    with pytest.raises(DamageError, match="out of order"):
        parse_frame(FRAMES["clear"], 0, above=above)


def sealed(kind: int, count: int, payload: bytes) -> bytes:
    """Return a frame with a good checksum whatever it says (of a put: over no prefixes)."""
    fields = FRAME.pack(0, len(payload), 1, 0, kind, count)[4:]
    checked = b"" if kind == PUT else payload
    return crc32(checked, crc32(fields)).to_bytes(4, "little") + fields + payload


@pytest.mark.parametrize(("kind", "count"), [(0, 0), (5, 0), (2**32 - 1, 0), (PUT, 1)])
def test_a_good_checksum_does_not_make_a_kind(kind: int, count: int) -> None:
    with pytest.raises(DamageError, match="a frame of kind"):
        parse_frame(sealed(kind, count, b""), 0)


@pytest.mark.parametrize("kind", [DELETE, BULK])
@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x91", b"\x90\x90", b"\x01", b"\xc0"])
def test_a_payload_that_is_no_list_is_no_frame(kind: int, payload: bytes) -> None:
    with pytest.raises(DamageError):
        parse_frame(sealed(kind, 1, payload), 0)


def test_records_one_after_another_come_back() -> None:
    items = {b"a": SMALL, b"b": Item(b"")}
    stored = [bytes(record.stored()) for _, record in records_of(items)]
    data = b"xx" + b"".join(stored)
    found = list(parse_records(data, 2, len(data)))
    assert {name: item_of(record) for name, record in found} == items
    for length in set(range(3, len(data))) - {2 + len(stored[0])}:
        with pytest.raises(DamageError):
            list(parse_records(data[:length], 2, length))


def test_the_longest_producer_fits_a_header() -> None:
    text = "x" * PRODUCER_TEXT_BYTES
    longest = Producer(text, text, 8, text)
    header = JournalHeader(longest, 2**64 - 1, 2**64 - 1, 2**64 - 1, 2**64 - 1, -(2**63))
    assert len(header.pack()) == HEADER_BYTES
    assert parse_journal_header(header.pack()) == header


def test_the_header_is_read_from_a_whole_journal() -> None:
    header = JournalHeader(Producer("zsh", "5.9"), 1, 2, 3, 4, 5)
    assert parse_journal_header(header.pack() + FRAMES["put"]) == header


def test_a_header_without_its_magic_is_no_journal() -> None:
    with pytest.raises(DamageError, match="no journal"):
        parse_journal_header(bytes(HEADER_BYTES))


def test_a_delete_is_what_the_format_says() -> None:
    names = [b"a", b"\xff not UTF-8"]
    assert joined(encode_delete(1, 0, names))[FRAME_BYTES:] == msgpack.packb(names)
