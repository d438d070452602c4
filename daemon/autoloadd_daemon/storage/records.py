"""The journal's format: a header, then one frame for each write, in the order of generations.

`docs/storage.md` has the byte tables. All numbers are little-endian.

A frame is one write: a whole `put_many` is in one frame, so recovery finds all of it or nothing.
The frame's checksum covers its own fields and, of a put, the prefixes of its records; each record's
body is covered by its own checksum. The fields include the generation, so a frame that lies in
another place than it was written to is found.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import msgpack  # type: ignore[import-untyped]

from autoloadd_daemon.errors import DamageError
from autoloadd_protocol.image import unpack_producer
from autoloadd_protocol.messages import pack
from autoloadd_protocol.record import PREFIX, PREFIX_BYTES, Record, name_span, parse_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from autoloadd_protocol.producer import Producer

MAGIC = b"ALDJRNL\0"
VERSION = 1
HEADER_BYTES = 512
FRAME = Struct("<IIQQII")
FRAME_BYTES = FRAME.size
KIND_AT = 24

PUT = 1
DELETE = 2
CLEAR = 3
BULK = 4

_HEADER = Struct("<8sIIQQQQq")
_CHECKSUM = Struct("<I")
_CHECKED_FIELDS = Struct("<IQQII")
"""A frame's head without its checksum, which it is the first part of."""
_CHECKSUM_AT = HEADER_BYTES - _CHECKSUM.size
_NOT_A_FRAME = (ValueError, IndexError, TypeError)
"""What msgpack and slicing raise on bytes that passed a checksum by accident."""


def new_epoch() -> int:
    """Return a random epoch; never 0, which says that there is no shard yet."""
    return int.from_bytes(os.urandom(8), "big") | 1


class JournalHeader(NamedTuple):
    """The first 512 bytes. Journals of a shard chain: base generation, and the previous one's end.

    `previous_end` is the offset behind the previous journal's last good frame, in bytes; 0 where
    there is none.
    """

    producer: Producer
    epoch: int
    sequence: int
    base_generation: int
    previous_end: int
    built_at_ns: int

    def pack(self) -> bytes:
        """Return the header's bytes."""
        fields = _HEADER.pack(
            MAGIC,
            VERSION,
            self.producer.pointer_width,
            self.epoch,
            self.sequence,
            self.base_generation,
            self.previous_end,
            self.built_at_ns,
        )
        head = (fields + pack(self.producer.as_map())).ljust(_CHECKSUM_AT, b"\0")
        return head + _CHECKSUM.pack(crc32(head))


class BulkFile(NamedTuple):
    """What a commit's frame says of the staged file: a journal of records without frames."""

    mode: str
    number: int
    size: int
    checksum: int
    built_at_ns: int | None


class Frame(NamedTuple):
    """One write as it was found in a journal. `synced` is an offset that was on stable storage."""

    kind: int
    generation: int
    synced: int
    end: int
    records: list[tuple[bytes, Record]]
    names: list[bytes]
    bulk: BulkFile | None


def parse_journal_header(data: bytes) -> JournalHeader:
    """Read a journal's header. Raises DamageError."""
    head = data[:HEADER_BYTES]
    if len(head) < HEADER_BYTES:
        raise DamageError(f"{len(head)} bytes are less than a journal's header")
    magic, version, width, epoch, sequence, base, previous_end, built_at = _HEADER.unpack_from(head)
    if magic != MAGIC:
        raise DamageError("no journal: the magic does not match")
    if version != VERSION:
        raise DamageError(f"journal version {version}, this program knows {VERSION}")
    if _CHECKSUM.unpack_from(head, _CHECKSUM_AT)[0] != crc32(head[:_CHECKSUM_AT]):
        raise DamageError("the journal header's checksum does not match")
    try:
        producer = unpack_producer(head[_HEADER.size : _CHECKSUM_AT])
    except ValueError as exc:
        raise DamageError(f"the journal header {exc}") from exc
    if producer.pointer_width != width:
        raise DamageError("the journal header contradicts itself")
    return JournalHeader(producer, epoch, sequence, base, previous_end, built_at)


def encode_put(generation: int, synced: int, records: Sequence[Record]) -> list[bytes | memoryview]:
    """Return a put's frame in parts: its head, then each record as it is."""
    stored = [record.stored() for record in records]
    prefixes = b"".join([part[:PREFIX_BYTES] for part in stored])
    size = sum(map(len, stored))
    return [_frame_head(PUT, generation, synced, size, len(stored), prefixes), *stored]


def encode_delete(generation: int, synced: int, names: Sequence[bytes]) -> list[bytes | memoryview]:
    """Return a delete's frame in parts."""
    payload = pack(names)
    return [_frame_head(DELETE, generation, synced, len(payload), len(names), payload), payload]


def encode_clear(generation: int, synced: int) -> list[bytes | memoryview]:
    """Return a clear's frame in parts."""
    return [_frame_head(CLEAR, generation, synced, 0, 0, b"")]


def encode_bulk(generation: int, synced: int, bulk: BulkFile) -> list[bytes | memoryview]:
    """Return the frame that makes a staged file part of the journal, in parts."""
    payload = pack(list(bulk))
    return [_frame_head(BULK, generation, synced, len(payload), 1, payload), payload]


def _frame_head(
    kind: int, generation: int, synced: int, size: int, count: int, checked: bytes
) -> bytes:
    fields = _CHECKED_FIELDS.pack(size, generation, synced, kind, count)
    return _CHECKSUM.pack(crc32(checked, crc32(fields))) + fields


def parse_frame(data: bytes, at: int, *, above: int = 0) -> Frame:
    """Return the frame that begins at an offset; its generation must be greater than `above`.

    Raises DamageError where there is no good one.
    """
    try:
        return _read_frame(data, at, above)
    except _NOT_A_FRAME as exc:
        raise DamageError(f"no frame, although a checksum matches: {exc}") from exc


def _read_frame(data: bytes, at: int, above: int) -> Frame:
    if at + FRAME_BYTES > len(data):
        raise DamageError("not a whole frame")
    checksum, size, generation, synced, kind, count = FRAME.unpack_from(data, at)
    start, end = at + FRAME_BYTES, at + FRAME_BYTES + size
    if end > len(data):
        raise DamageError("not a whole frame")
    records = list(parse_records(data, start, end)) if kind == PUT else []
    checked = (
        b"".join([data[r.start - PREFIX_BYTES : r.start] for _, r in records])
        if kind == PUT
        else data[start:end]
    )
    fields = data[at + _CHECKSUM.size : start]
    if crc32(checked, crc32(fields)) != checksum:
        raise DamageError("a frame's checksum does not match")
    names: list[bytes] = list(msgpack.unpackb(data[start:end])) if kind == DELETE else []
    bulk = BulkFile(*msgpack.unpackb(data[start:end])) if kind == BULK else None
    if kind not in (PUT, DELETE, CLEAR, BULK) or (kind == PUT and count != len(records)):
        raise DamageError(f"a frame of kind {kind} with {count} items")
    if generation <= above:
        raise DamageError("a frame is out of order")
    return Frame(kind, generation, synced, end, records, names, bulk)


def parse_records(data: bytes | memoryview, start: int, end: int) -> Iterator[tuple[bytes, Record]]:
    """Return (name, record) of records that lie one after another. Raises DamageError."""
    position = start
    while position < end:
        if position + PREFIX_BYTES > end:
            raise DamageError("not a whole record")
        checksum, size = PREFIX.unpack_from(data, position)
        body = position + PREFIX_BYTES
        position = body + size
        if position > end or crc32(memoryview(data)[body:position]) != checksum:
            raise DamageError("a record's checksum does not match")
        try:
            record = parse_record(data, body, position)
        except _NOT_A_FRAME as exc:
            raise DamageError(f"no record, although its checksum matches: {exc}") from exc
        name_start, name_end = name_span(record)
        yield bytes(data[name_start:name_end]), record


def parts_bytes(parts: Iterable[bytes | memoryview]) -> int:
    """Return the length of all parts together."""
    return sum(map(len, parts))
