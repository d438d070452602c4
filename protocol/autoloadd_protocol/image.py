"""The image: a whole shard at one generation as one immutable byte string, usable in place.

The same bytes are the file on disk, the daemon's memory and (sealed) what clients map.
`docs/storage.md` has the byte table. All numbers are little-endian.

    header    1,024 bytes: sizes, epoch, generation, checksums, the producer
    table     a power of two of 64-byte slots, open addressing with linear probing
    order     a u32 for each entry: the slot's number, entries sorted by name
    records   see `record.py`; older generations first

A slot is `name, binary_mtime_ns, blob start, blob end`. It holds the name itself, so that one
unpacking is the probe, the comparison and the answer's metadata. The table's size is a power of
two, so `crc32(name) & mask` is at once the slot's offset in bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from struct import Struct
from struct import pack as pack_struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import msgpack  # type: ignore[import-untyped]

from .errors import ImageError, RequestError
from .messages import pack
from .producer import Producer, producer_from_map
from .record import (
    BODY_BYTES,
    PREFIX_BYTES,
    Record,
    body_bytes,
    body_start,
    name_span,
    parse_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAGIC = b"ALDIMAGE"
VERSION = 1

HEADER_BYTES = 1024
SLOT = Struct("<40pqQQ")
SLOT_BYTES = SLOT.size
SLOT_NAME_BYTES = 39

_FIELDS = Struct("<8sIIQQqQQQQQqqII")
_CHECKSUM = Struct("<I")
_ORDER = Struct("<I")
_PRODUCER_AT = 128
_CHECKSUM_AT = HEADER_BYTES - _CHECKSUM.size
_ALIGNMENT = 64
_SLOTS_PER_ENTRY = 2.5
_MIN_SLOTS = 16
MAX_INDEX_BYTES = int(2 * _SLOTS_PER_ENTRY * SLOT_BYTES) + 4
"""What table and order take for an entry at most: the table's size is a power of two."""
_LONG_MARK = 0xFF
"""No UTF-8 text begins with this byte: a slot that does holds length and head of a longer name."""
_LONG_NAME = Struct("<BH36s")


class ImageHeader(NamedTuple):
    """The header. Sizes in bytes, times in ns. `generation` compares only within `epoch`."""

    producer: Producer
    epoch: int
    generation: int
    built_at_ns: int
    slots: int
    entries: int
    blob_bytes: int
    record_bytes: int
    oldest_mtime_ns: int
    newest_mtime_ns: int
    index_checksum: int
    records_checksum: int

    @property
    def order_at(self) -> int:
        """Where the order array begins."""
        return HEADER_BYTES + self.slots * SLOT_BYTES

    @property
    def records_at(self) -> int:
        """Where the first record begins."""
        return records_at(self.slots, self.entries)

    @property
    def total_bytes(self) -> int:
        """Length of the whole image."""
        return self.records_at + self.record_bytes

    def pack(self) -> bytes:
        """Return the header's 1,024 bytes."""
        fields = _FIELDS.pack(
            MAGIC,
            VERSION,
            self.producer.pointer_width,
            self.total_bytes,
            self.epoch,
            self.built_at_ns,
            self.generation,
            self.slots,
            self.entries,
            self.blob_bytes,
            self.record_bytes,
            self.oldest_mtime_ns,
            self.newest_mtime_ns,
            self.index_checksum,
            self.records_checksum,
        )
        head = fields.ljust(_PRODUCER_AT, b"\0") + pack(self.producer.as_map())
        head = head.ljust(_CHECKSUM_AT, b"\0")
        return head + _CHECKSUM.pack(crc32(head))


def unpack_producer(field: bytes) -> Producer:
    """Read the producer in a file's header: a MessagePack map, then zeros. Raises ValueError."""
    try:
        unpacker = msgpack.Unpacker()
        unpacker.feed(field)
        return producer_from_map(unpacker.unpack())
    except (ValueError, msgpack.OutOfData, RequestError) as exc:
        raise ValueError(f"names no producer: {exc}") from exc


def parse_header(buffer: bytes | memoryview) -> ImageHeader:
    """Read the first 1,024 bytes of an image. Raises ImageError that says what is wrong."""
    head = bytes(buffer[:HEADER_BYTES])
    if len(head) < HEADER_BYTES:
        raise ImageError(f"{len(head)} bytes are less than a header")
    magic, version, *fields = _FIELDS.unpack_from(head)
    if magic != MAGIC:
        raise ImageError("no image: the magic does not match")
    if version != VERSION:
        raise ImageVersionError(f"image version {version}, this program knows {VERSION}")
    if _CHECKSUM.unpack_from(head, _CHECKSUM_AT)[0] != crc32(head[:_CHECKSUM_AT]):
        raise ImageError("the header's checksum does not match")
    width, total, epoch, built_at, generation, slots, entries, blob, records, *rest = fields
    try:
        producer = unpack_producer(head[_PRODUCER_AT:_CHECKSUM_AT])
    except ValueError as exc:
        raise ImageError(f"the header {exc}") from exc
    header = ImageHeader(
        producer, epoch, generation, built_at, slots, entries, blob, records, *rest
    )
    if producer.pointer_width != width or header.total_bytes != total:
        raise ImageError("the header contradicts itself")
    if slots & (slots - 1) or slots <= entries:
        raise ImageError(f"{slots} slots for {entries} entries")
    return header


class ImageVersionError(ImageError):
    """An image of a format that this program does not know: keep the file, serve nothing of it."""


def slot_key(name: bytes) -> bytes:
    """Return what a slot holds for a name: the name, or mark, length and head of one too long."""
    if len(name) <= SLOT_NAME_BYTES:
        return name
    return _LONG_NAME.pack(_LONG_MARK, len(name), name)


def slots_for(entries: int) -> int:
    """Return the table's size: a load of 0.2 to 0.4, where a lookup needs 1.2 probes."""
    slots = _MIN_SLOTS
    while slots < entries * _SLOTS_PER_ENTRY:
        slots *= 2
    return slots


def records_at(slots: int, entries: int) -> int:
    """Return where the records begin, in bytes from the image's start."""
    end = HEADER_BYTES + slots * SLOT_BYTES + _ORDER.size * entries
    return -(-end // _ALIGNMENT) * _ALIGNMENT


class Image:
    """Looks names up in an image's bytes, in place.

    Checks the header and the length on construction (ImageError); `verify` checks the rest. Until
    then nothing but the header may be trusted.
    """

    def __init__(self, buffer: bytes | memoryview) -> None:
        self.buffer = memoryview(buffer)
        self.header = parse_header(self.buffer)
        if len(self.buffer) != self.header.total_bytes:
            raise ImageError(
                f"{len(self.buffer):,} bytes, the header says {self.header.total_bytes:,}"
            )
        self._table = self.buffer[HEADER_BYTES : self.header.order_at]
        self._mask = (self.header.slots - 1) * SLOT_BYTES
        self.look_up = _make_look_up(self.buffer, self._mask)
        """Returns the record that is stored under a name of 1 to 1,024 bytes, or None."""

    def verify(self) -> None:
        """Check index and records against the header's checksums. Raises ImageError.

        Takes 0.35 ms for each MB, without the GIL.
        """
        records = self.header.records_at
        if crc32(self.buffer[HEADER_BYTES:records]) != self.header.index_checksum:
            raise ImageError("the index's checksum does not match")
        if crc32(self.buffer[records:]) != self.header.records_checksum:
            raise ImageError("the records' checksum does not match")

    def __len__(self) -> int:
        return self.header.entries

    def name_at(self, index: int) -> bytes:
        """Return the name at a place in the sorted order, from 0."""
        return self.entry_at(index)[0]

    def entry_at(self, index: int) -> tuple[bytes, Record]:
        """Return (name, record) at a place in the sorted order, from 0."""
        (slot,) = _ORDER.unpack_from(self.buffer, self.header.order_at + _ORDER.size * index)
        return self._entry(*SLOT.unpack_from(self._table, slot * SLOT_BYTES))

    def first_after(self, name: bytes) -> int:
        """Return the place in the sorted order of the first name that is greater than `name`."""
        return bisect_right(range(len(self)), name, key=self.name_at)

    def first_from(self, name: bytes) -> int:
        """Return the place in the sorted order of the first name that is at least `name`."""
        return bisect_left(range(len(self)), name, key=self.name_at)

    def entries(self) -> Iterator[tuple[bytes, Record]]:
        """Return (name, record) of every entry, in no order."""
        return (self._entry(*slot) for slot in self.slots() if slot[2])

    def oldest_first(self) -> Iterator[Record]:
        """Return the records in their order, older generations first."""
        at = self.header.records_at
        while at < len(self.buffer):
            start = at + PREFIX_BYTES
            at = start + body_bytes(self.buffer, start)
            yield parse_record(self.buffer, start, at)

    def slots(self) -> Iterator[tuple[bytes, int, int, int]]:
        """Return each slot of the table: key, mtime, where the blob starts and ends.

        A blob that starts at 0: the slot is free. `full_name` makes the name of a key.
        """
        return SLOT.iter_unpack(self._table)

    def order(self) -> Iterator[tuple[int]]:
        """Return the number of each entry's slot, sorted by name."""
        return _ORDER.iter_unpack(self.buffer[self.header.order_at :][: _ORDER.size * len(self)])

    def full_name(self, key: bytes, blob_start: int, blob_end: int) -> bytes:
        """Return the name of a slot that is taken; one too long for it is read in its record."""
        if key[0] != _LONG_MARK:
            return key
        return self._entry(key, 0, blob_start, blob_end)[0]

    def _entry(self, stored: bytes, mtime: int, start: int, end: int) -> tuple[bytes, Record]:
        if stored[0] != _LONG_MARK:
            return stored, _record(self.buffer, len(stored), mtime, start, end)
        record = _record(self.buffer, _LONG_NAME.unpack(stored)[1], mtime, start, end)
        name_start, name_end = name_span(record)
        return bytes(self.buffer[name_start:name_end]), record


def _make_look_up(buffer: memoryview, mask: int) -> Callable[[bytes], Record | None]:
    # A closure with everything in place: 0.6 us. As a method that called the functions below it
    # took 2.1, half of what a get costs the server. It does not know the image: a cycle of the two
    # would keep 49 MB until the garbage collector comes.
    unpack, unpack_size, new = SLOT.unpack_from, BODY_BYTES.unpack_from, tuple.__new__

    def look_up(name: bytes) -> Record | None:
        length = len(name)
        if length > SLOT_NAME_BYTES:
            return _look_up_long(buffer, mask, name)
        at = crc32(name) & mask
        stored, mtime, start, end = unpack(buffer, HEADER_BYTES + at)
        while stored != name:
            if not start:
                return None
            at = (at + SLOT_BYTES) & mask
            stored, mtime, start, end = unpack(buffer, HEADER_BYTES + at)
        size = end - start
        # The usual sizes; `body_start` knows the others.
        if 0xFF < size < 0x10000 and length < 0x20:
            first = start - length - 5
        else:
            first = body_start(length, start, size)
        (size,) = unpack_size(buffer, first - BODY_BYTES.size)
        return new(Record, (buffer, first, first + size, mtime, start, end))

    return look_up


def _look_up_long(buffer: memoryview, mask: int, name: bytes) -> Record | None:
    key = slot_key(name)
    at = crc32(name) & mask
    while True:
        stored, mtime, start, end = SLOT.unpack_from(buffer, HEADER_BYTES + at)
        if not start:
            return None
        if stored == key:
            record = _record(buffer, len(name), mtime, start, end)
            name_start, name_end = name_span(record)
            if buffer[name_start:name_end] == name:
                return record
        at = (at + SLOT_BYTES) & mask


def _record(buffer: memoryview, name_bytes: int, mtime: int, start: int, end: int) -> Record:
    first = body_start(name_bytes, start, end - start)
    return Record(buffer, first, first + body_bytes(buffer, first), mtime, start, end)


def place(table: memoryview, name: bytes, mtime: int, blob_start: int, blob_end: int) -> int:
    """Fill the slot of a name that `table` does not hold yet; return the slot's number.

    `table` is writable, `slots_for(entries) * SLOT_BYTES` long and zeros where slots are free.
    `blob_start` and `blob_end` count in bytes from the image's start.
    """
    mask = len(table) - SLOT_BYTES
    position = crc32(name) & mask
    # The first byte of a slot is its name's length: never 0 in one that is taken.
    while table[position]:
        position = (position + SLOT_BYTES) & mask
    SLOT.pack_into(table, position, slot_key(name), mtime, blob_start, blob_end)
    return position // SLOT_BYTES


def pack_order(slots: Sequence[int]) -> bytes:
    """Return a piece of the order: the numbers of slots whose names follow one another."""
    return pack_struct(f"<{len(slots)}I", *slots)
