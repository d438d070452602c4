"""The portable form of a shard: one MessagePack stream, the version in front. docs/portable.md.

    ["autoloadd", 1]                                   which form, which version
    [crc32, bin]   a map: producer, built_at_ns        the header
    [crc32, bin]   [name, blob, fingerprint, binary_mtime_ns, cached_at_ns]   for each entry
    [crc32, bin]   [entries, crc32 of every byte before this value]           the end

Each checksum is zlib's CRC-32 of the bytes in the bin beside it, which hold one MessagePack value.
Entries come in the order of their names' bytes, so a name cannot come twice, and equal shards give
equal bytes. Bytes in, values out; no I/O.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from zlib import crc32

import msgpack  # type: ignore[import-untyped]

from .decoding import bin_span, decode_int
from .encoding import bin_header, encode_uint
from .errors import PortableError, RequestError
from .messages import pack
from .parameters import read_entry, read_name, read_time
from .producer import Producer, producer_from_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERSION = 1
MAGIC: bytes = b"\x92\xa9autoloadd"
"""The file's first bytes, before its version."""

_PAIR = 0x92
_ENTRY_ITEMS = 5

EntryValues: TypeAlias = tuple[bytes, bytes | None, int, int]
"""Blob, fingerprint, binary_mtime_ns, cached_at_ns."""


class PortableEntry(NamedTuple):
    """An entry of a stream, where its body lies in it, and what a merge needs to know of it."""

    name: str
    cached_at_ns: int
    blob_bytes: int
    start: int
    end: int


class PortableHeader(NamedTuple):
    """Whose entries a stream holds, and when their shard was built."""

    producer: Producer
    built_at_ns: int


class Portable(NamedTuple):
    """A stream that passed every check."""

    data: bytes
    header: PortableHeader
    entries: tuple[PortableEntry, ...]

    def load(self, entry: PortableEntry) -> EntryValues:
        """Return an entry's values."""
        return _read_entry(_unpack(self.data[entry.start : entry.end], entry.start), entry.start)[1]


def encode_portable(
    header: PortableHeader,
    entries: Iterable[tuple[str, EntryValues]],
) -> Iterator[bytes]:
    """Yield a stream in parts. `entries` come sorted by their names' bytes."""
    described = {"producer": header.producer.as_map(), "built_at_ns": header.built_at_ns}
    first = MAGIC + encode_uint(VERSION) + _seal(pack(described))
    yield first
    checksum, count = crc32(first), 0
    for name, entry in entries:
        part = _seal(pack([name, *entry]))
        yield part
        checksum, count = crc32(part, checksum), count + 1
    yield _seal(pack([count, checksum]))


def _seal(body: bytes) -> bytes:
    return b"".join((b"\x92", encode_uint(crc32(body)), bin_header(len(body)), body))


def read_portable(data: bytes) -> Portable:
    """Return what a stream holds. Raises PortableError, which says where it is damaged and why."""
    return _Reader(data).read()


class _Reader:
    """One pass over a stream. `_position` is where the value begins that is read next."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def read(self) -> Portable:
        self._read_version()
        start, end = self._next_span()
        header = _read_header(_unpack(self._data[start:end], start), start)
        entries: list[PortableEntry] = []
        previous = b""
        while True:
            value_at = self._position
            start, end = self._next_span()
            value = _unpack(self._data[start:end], start)
            if not (isinstance(value, tuple) and len(value) == _ENTRY_ITEMS):
                break
            name, (blob, _, _, cached_at_ns) = _read_entry(value, start)
            if name <= previous:
                raise PortableError(start, "its name does not follow the name before it")
            previous = name
            entries.append(PortableEntry(name.decode(), cached_at_ns, len(blob), start, end))
        self._check_end(value, len(entries), value_at)
        return Portable(self._data, header, tuple(entries))

    def _read_version(self) -> None:
        if not self._data.startswith(MAGIC):
            raise PortableError(0, "this is no file of autoloadd's")
        try:
            version, self._position = decode_int(self._data, len(MAGIC))
        except (ValueError, IndexError) as exc:
            raise PortableError(len(MAGIC), "there is no version") from exc
        if version != VERSION:
            raise PortableError(
                len(MAGIC),
                f"version {version:,}; this autoloadd reads only {VERSION}",
            )

    def _next_span(self) -> tuple[int, int]:
        """Return where the next value's body begins and ends, its checksum having matched."""
        at, data = self._position, self._data
        try:
            if data[at] != _PAIR:
                raise PortableError(at, "no [checksum, bytes] begins here")
            checksum, position = decode_int(data, at + 1)
            start, size = bin_span(data, position)
        except IndexError as exc:
            raise PortableError(len(data), "the file was cut off here") from exc
        except ValueError as exc:
            raise PortableError(at + 1, "no checksum stands here") from exc
        if size < 0:
            raise PortableError(position, "no bytes begin here")
        end = start + size
        if end > len(data):
            raise PortableError(len(data), "the file was cut off here")
        if crc32(memoryview(data)[start:end]) != checksum:
            raise PortableError(start, "the checksum does not match")
        self._position = end
        return start, end

    def _check_end(self, body: object, count: int, value_at: int) -> None:
        checksum = crc32(memoryview(self._data)[:value_at])
        if body != (count, checksum):
            reason = f"this end does not fit the {count:,} entries before it"
            raise PortableError(value_at, reason)
        if self._position != len(self._data):
            raise PortableError(self._position, "something follows the end")


def _unpack(body: bytes, at: int) -> Any:
    try:
        return _unpack_body(body)
    except ValueError as exc:
        raise PortableError(at, f"no MessagePack value of this form: {exc}") from exc


def _read_header(value: object, at: int) -> PortableHeader:
    if not isinstance(value, dict):
        raise PortableError(at, "the header is no map")
    try:
        producer = producer_from_map(value.get("producer"))
        built_at_ns = read_time(value.get("built_at_ns"))
    except RequestError as exc:
        raise PortableError(at, f"the header: {exc}") from exc
    if built_at_ns is None:
        raise PortableError(at, "the header has no built_at_ns")
    return PortableHeader(producer, built_at_ns)


def _read_entry(value: tuple[Any, ...], at: int) -> tuple[bytes, EntryValues]:
    try:
        name = read_name(value[0])
        blob, fingerprint, binary_mtime_ns, cached_at_ns = read_entry(value[1:])
    except RequestError as exc:
        raise PortableError(at, str(exc)) from exc
    if binary_mtime_ns is None or cached_at_ns is None:
        raise PortableError(at, "an entry without its times")
    return name, (blob, fingerprint, binary_mtime_ns, cached_at_ns)


_unpack_body = partial(
    msgpack.unpackb,
    use_list=False,
    # Real values reach neither: a body that asks for more gets no room for it.
    max_array_len=16,
    max_map_len=64,
    max_ext_len=0,
)
