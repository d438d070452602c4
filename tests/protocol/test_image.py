"""An image gives back what was put in, at its exact bytes, and one flipped bit is found."""

from __future__ import annotations

import gc
import struct
import weakref
from typing import NamedTuple
from zlib import crc32

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoloadd_protocol.errors import ImageError
from autoloadd_protocol.image import (
    HEADER_BYTES,
    MAGIC,
    SLOT_BYTES,
    SLOT_NAME_BYTES,
    Image,
    ImageHeader,
    ImageVersionError,
    pack_order,
    parse_header,
    place,
    records_at,
    slot_key,
    slots_for,
)
from autoloadd_protocol.producer import Producer
from autoloadd_protocol.record import Record, encode_record, fingerprint_of, name_span

from ..records import is_intact

PRODUCER = Producer("zsh", "5.9", 8, "ubuntu")


class Item(NamedTuple):
    """One entry's parts."""

    blob: bytes
    fingerprint: bytes | None = None
    mtime: int = 0
    cached_at: int = 0


def make_image(items: dict[bytes, Item], producer: Producer = PRODUCER) -> bytes:
    """Return an image of items, the oldest first."""
    records = b""
    slots = slots_for(len(items))
    first = records_at(slots, len(items))
    table = bytearray(slots * SLOT_BYTES)
    taken: dict[bytes, int] = {}
    for name, item in items.items():
        record = encode_record(name, *item)
        start = first + len(records) + record.blob_start
        taken[name] = place(memoryview(table), name, item.mtime, start, start + len(item.blob))
        records += record.stored()
    index = bytes(table) + pack_order([taken[name] for name in sorted(taken)])
    index = index.ljust(first - HEADER_BYTES, b"\0")
    mtimes = [item.mtime for item in items.values()] or [0]
    header = ImageHeader(
        producer=producer,
        epoch=2**64 - 1,
        generation=7,
        built_at_ns=-1,
        slots=slots,
        entries=len(items),
        blob_bytes=sum(len(item.blob) for item in items.values()),
        record_bytes=len(records),
        oldest_mtime_ns=min(mtimes),
        newest_mtime_ns=max(mtimes),
        index_checksum=crc32(index),
        records_checksum=crc32(records),
    )
    return header.pack() + index + records


def item_of(record: Record) -> tuple[bytes, Item]:
    """Return the name and the parts that a record's bytes hold."""
    start, end = name_span(record)
    body = msgpack.unpackb(record.buffer[record.start : record.end])
    assert is_intact(record)
    assert bytes(record.buffer[record.blob_start : record.blob_end]) == body[1]
    assert fingerprint_of(record) == body[2]
    assert record.binary_mtime_ns == body[3]
    return bytes(record.buffer[start:end]), Item(*body[1:])


TIMES = st.integers(-(2**63), 2**63 - 1)
NAMES = st.one_of(
    st.text(min_size=1, max_size=12),
    st.sampled_from(["n" * size for size in (38, 39, 40, 41, 255, 256, 1024)]),
    st.text("ab", min_size=36, max_size=44),
).map(str.encode)
ITEMS = st.dictionaries(
    NAMES,
    st.builds(
        Item, st.binary(max_size=50), st.none() | st.binary(min_size=1, max_size=50), TIMES, TIMES
    ),
    max_size=40,
)


@settings(deadline=None)
@given(ITEMS, st.lists(NAMES))
def test_an_image_gives_back_what_was_put_in(items: dict[bytes, Item], others: list[bytes]) -> None:
    image = Image(make_image(items))
    image.verify()
    for name in (*items, *others):
        record = image.look_up(name)
        assert (record and item_of(record)) == ((name, items[name]) if name in items else None)
    ordered = sorted(items)
    assert len(image) == len(items)
    assert [image.name_at(index) for index in range(len(image))] == ordered
    for index, name in enumerate(ordered):
        found, record = image.entry_at(index)
        assert (found, item_of(record)) == (name, (name, items[name]))
    assert {name: item_of(record)[1] for name, record in image.entries()} == items
    assert [item_of(record) for record in image.oldest_first()] == list(items.items())


@settings(deadline=None)
@given(ITEMS)
def test_the_table_can_be_read_slot_by_slot(items: dict[bytes, Item]) -> None:
    image = Image(make_image(items))
    names: dict[int, bytes] = {}
    for number, (key, mtime, start, end) in enumerate(image.slots()):
        if start:
            names[number] = image.full_name(key, start, end)
            assert slot_key(names[number]) == key
            assert mtime == items[names[number]].mtime
            assert bytes(image.buffer[start:end]) == items[names[number]].blob
    assert [names[number] for (number,) in image.order()] == sorted(items)


@settings(deadline=None)
@given(ITEMS, NAMES)
def test_the_order_says_which_names_follow(items: dict[bytes, Item], name: bytes) -> None:
    image = Image(make_image(items))
    ordered = sorted(items)
    for asked in (name, *items):
        after, onwards = image.first_after(asked), image.first_from(asked)
        assert ordered[after:] == [other for other in ordered if other > asked]
        assert ordered[onwards:] == [other for other in ordered if other >= asked]


def test_an_empty_image_holds_nothing() -> None:
    image = Image(make_image({}))
    image.verify()
    assert len(image) == 0
    assert image.look_up(b"_git") is None
    assert list(image.entries()) == []
    assert image.first_after(b"") == 0


@pytest.mark.parametrize("size", [1, 38, 39, 40, 41, 255, 256, 1023, 1024])
def test_names_on_both_sides_of_a_slots_width(size: int) -> None:
    name = b"n" * size
    image = Image(make_image({name: Item(b"x", mtime=5)}))
    record = image.look_up(name)
    assert record is not None
    assert item_of(record) == (name, Item(b"x", mtime=5))
    assert image.name_at(0) == name
    assert image.look_up(name + b"n") is None
    assert image.look_up(name[:-1] + b"m") is None


def test_long_names_with_one_head_one_length_and_one_slot_are_kept_apart() -> None:
    *names, absent = names_in_slot(3, 7, slots_for(6), b"n" * 60 + b"%05d")
    assert len({slot_key(name) for name in names}) == 1
    items = {name: Item(name[60:]) for name in names}
    image = Image(make_image(items))
    image.verify()
    for name, item in items.items():
        record = image.look_up(name)
        assert record is not None
        assert item_of(record) == (name, item)
    assert image.look_up(absent) is None


def names_in_slot(slot: int, count: int, slots: int, form: bytes = b"f%d") -> list[bytes]:
    """Return names whose first place in a table of so many slots is the same."""
    found: list[bytes] = []
    number = 0
    while len(found) < count:
        name = form % number
        if crc32(name) & (slots - 1) * SLOT_BYTES == slot * SLOT_BYTES:
            found.append(name)
        number += 1
    return found


def test_names_that_all_want_the_last_slot_are_found_past_the_tables_end() -> None:
    slots = slots_for(50)
    *names, absent = names_in_slot(slots - 1, 51, slots)
    items = {name: Item(name) for name in names}
    image = Image(make_image(items))
    assert image.header.slots == slots
    for name in names:
        record = image.look_up(name)
        assert record is not None
        assert item_of(record)[1] == items[name]
    assert image.look_up(absent) is None


def test_a_tables_load_is_what_the_docstring_says() -> None:
    for entries in (7, 13, 100, 1_000, 16_000, 100_000):
        slots = slots_for(entries)
        assert slots & (slots - 1) == 0
        assert 0.2 <= entries / slots <= 0.4
    assert slots_for(0) == slots_for(6) == 16


def test_records_begin_aligned_behind_table_and_order() -> None:
    assert records_at(16, 0) == HEADER_BYTES + 16 * SLOT_BYTES
    assert records_at(16, 1) == HEADER_BYTES + 16 * SLOT_BYTES + 64
    assert records_at(64, 16) == HEADER_BYTES + 64 * SLOT_BYTES + 64


SMALL = make_image({b"_git": Item(b"compiled", b"p", 1, 2), b"n" * 40: Item(b"")})


def test_every_truncation_and_every_byte_too_many_is_refused() -> None:
    for end in range(len(SMALL)):
        with pytest.raises(ImageError):
            Image(SMALL[:end])
    with pytest.raises(ImageError, match="bytes, the header says"):
        Image(SMALL + b"\0")


def test_every_flipped_bit_is_refused() -> None:
    damaged = bytearray(SMALL)
    for bit in range(8 * len(SMALL)):
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ImageError):
            Image(bytes(damaged)).verify()
        damaged[bit // 8] ^= 1 << bit % 8
    Image(bytes(damaged)).verify()


def test_what_failed_is_named() -> None:
    index, records = HEADER_BYTES + 3, len(SMALL) - 3
    for at, reason in ((index, "index"), (records, "records"), (300, "header's checksum")):
        damaged = bytearray(SMALL)
        damaged[at] ^= 1
        with pytest.raises(ImageError, match=reason):
            Image(bytes(damaged)).verify()


def test_the_header_comes_back_as_it_was() -> None:
    header = parse_header(SMALL)
    assert header.producer == PRODUCER
    assert (header.epoch, header.generation, header.built_at_ns) == (2**64 - 1, 7, -1)
    assert (header.entries, header.slots, header.blob_bytes) == (2, 16, 8)
    assert (header.oldest_mtime_ns, header.newest_mtime_ns) == (0, 1)
    assert header.total_bytes == len(SMALL)
    assert header.pack() == SMALL[:HEADER_BYTES]
    assert header.order_at == HEADER_BYTES + 16 * SLOT_BYTES


def test_a_producer_of_the_longest_texts_fits_the_header() -> None:
    producer = Producer("é" * 64, "v" * 128, 4, "\U0001f41a" * 32)
    assert parse_header(make_image({}, producer)).producer == producer


def changed_header(at: int, form: str, *values: object) -> bytes:
    """Return the small image with fields of its header replaced, and the checksum made right."""
    head = bytearray(SMALL[:HEADER_BYTES])
    struct.pack_into(form, head, at, *values)
    struct.pack_into("<I", head, HEADER_BYTES - 4, crc32(head[:-4]))
    return bytes(head) + SMALL[HEADER_BYTES:]


@pytest.mark.parametrize(
    ("at", "form", "value", "reason"),
    [
        (12, "<I", 4, "contradicts"),
        (16, "<Q", len(SMALL) + 1, "contradicts"),
        (48, "<Q", 15, "contradicts"),
        (48, "<Q", 0, "contradicts"),
        (48, "<Q", 2**63, "contradicts"),
        (56, "<Q", 20, "contradicts"),
        (128, "<B", 0xC0, "no producer"),
        (128, "<B", 0xC1, "no producer"),
        (128, "<3s", b"\xdb\xff\xff", "no producer"),
        (128, "<3s", b"\x81\xa1\xff", "no producer"),
        (128, "<5s", b"\xdd\xff\xff\xff\xff", "no producer"),
        (128, "<5s", b"\xdb\x00\x00\xff\xff", "no producer"),
    ],
    ids=repr,
)
def test_a_header_with_a_right_checksum_that_makes_no_sense_is_refused(
    at: int, form: str, value: object, reason: str
) -> None:
    with pytest.raises(ImageError, match=reason):
        Image(changed_header(at, form, value))


def test_another_version_is_told_apart_from_damage() -> None:
    with pytest.raises(ImageVersionError, match="version 2, this program knows 1"):
        parse_header(changed_header(8, "<I", 2))
    with pytest.raises(ImageError, match="magic"):
        parse_header(b"X" + SMALL[1:])


def test_slots_not_a_power_of_two_or_too_few_are_refused() -> None:
    """With a total that fits: otherwise a look-up would never reach an empty slot."""
    for slots, entries in ((3, 0), (0, 0), (2, 2)):
        total = records_at(slots, entries)
        head = ImageHeader(PRODUCER, 1, 1, 1, slots, entries, 0, 0, 0, 0, 0, 0).pack()
        with pytest.raises(ImageError, match="slots for"):
            Image(head.ljust(total, b"\0"))


def test_the_byte_table() -> None:
    """Offsets that docs/storage.md publishes."""
    image = make_image({b"_git": Item(b"compiled", None, 5, 6)})
    assert image[:8] == MAGIC
    fields = struct.unpack_from("<IIQQqQQQQQqqII", image, 8)
    body = msgpack.packb(["_git", b"compiled", None, 5, 6])
    record = crc32(body).to_bytes(4, "little") + len(body).to_bytes(4, "little") + body
    records = records_at(16, 1)
    index = image[HEADER_BYTES:records]
    assert fields == (
        *(1, 8, len(image), 2**64 - 1, -1, 7, 16, 1, 8, len(record), 5, 5),
        *(crc32(index), crc32(record)),
    )
    assert image[records:] == record
    at = crc32(b"_git") & 15 * SLOT_BYTES
    blob_start = records + 8 + 1 + 5 + 2
    slot = struct.pack("<40pqQQ", b"_git", 5, blob_start, blob_start + 8)
    assert index[at : at + SLOT_BYTES] == slot
    assert index[16 * SLOT_BYTES :] == (at // SLOT_BYTES).to_bytes(4, "little").ljust(64, b"\0")


def test_a_long_names_slot_holds_mark_length_and_head() -> None:
    assert slot_key(b"n" * SLOT_NAME_BYTES) == b"n" * 39
    assert slot_key(b"n" * 40 + b"rest") == b"\xff" + (44).to_bytes(2, "little") + b"n" * 36


def test_an_image_that_nobody_uses_is_gone_at_once() -> None:
    """Not when the garbage collector comes: it may be 49 MB."""
    image = Image(make_image({b"a": Item(b"1")}))
    gone = weakref.ref(image)
    gc.disable()
    try:
        del image
        assert gone() is None
    finally:
        gc.enable()
