"""A record: one entry as bytes, the same in an answer, the journal, a staged bulk and an image.

| at | size | what |
| --- | --- | --- |
| 0 | 4 | CRC-32 (zlib's) of the body, little-endian |
| 4 | 4 | length of the body in bytes, little-endian |
| 8 | | the body: MessagePack `[name, blob, fingerprint, binary_mtime_ns, cached_at_ns]` |

The body is exactly the result of `get`, in shortest forms, so an answer is a slice of stored bytes.
The checksum covers the name, so a record that was swapped between two names is found.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from .decoding import bin_span, decode_int, str_span
from .encoding import bin_header, encode_int, encode_optional_bin, str_header

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = Struct("<II")
PREFIX_BYTES = PREFIX.size

BODY_BYTES = Struct("<I")
"""The prefix's second half: it ends where the body begins."""

_unpack_body_bytes: Callable[[bytes | memoryview, int], tuple[int]] = BODY_BYTES.unpack_from


class Record(NamedTuple):
    """Where one entry's parts lie in a buffer. Offsets and lengths are bytes.

    `buffer[start:end]` is the body; `buffer[blob_start:blob_end]` the blob within it.
    """

    buffer: bytes | memoryview
    start: int
    end: int
    binary_mtime_ns: int
    blob_start: int
    blob_end: int

    @property
    def blob_bytes(self) -> int:
        """Length of the blob."""
        return self.blob_end - self.blob_start

    @property
    def stored_bytes(self) -> int:
        """Length of the whole record, with its prefix."""
        return self.end - self.start + PREFIX_BYTES

    def stored(self) -> bytes | memoryview:
        """Return the whole record, with its prefix."""
        return self.buffer[self.start - PREFIX_BYTES : self.end]

    def is_fresh(self, binary_mtime_ns: int | None, encoded_fingerprint: bytes | None) -> bool:
        """Tell whether the entry may be served to someone who asked with these.

        `encoded_fingerprint` is the MessagePack bin, as `encode_optional_bin` gives it; None of
        either is not compared.
        """
        if binary_mtime_ns is not None and self.binary_mtime_ns < binary_mtime_ns:
            return False
        if encoded_fingerprint is None:
            return True
        end = self.blob_end + len(encoded_fingerprint)
        return self.buffer[self.blob_end : end] == encoded_fingerprint


_new_record: Callable[[type[Record], tuple[object, ...]], Record] = tuple.__new__
"""`Record(...)` in a third of the time."""


def encode_record(
    name: bytes,
    blob: bytes,
    fingerprint: bytes | None,
    binary_mtime_ns: int,
    cached_at_ns: int,
) -> Record:
    """Return an entry as a record in a buffer of its own."""
    name_str = str_header(len(name)) + name
    times = encode_optional_bin(fingerprint) + encode_int(binary_mtime_ns)
    return join_record(name_str, blob, times, binary_mtime_ns, cached_at_ns)


def join_record(
    name: bytes, blob: bytes, middle: bytes, binary_mtime_ns: int, cached_at_ns: int
) -> Record:
    """Return an entry as a record, of which parts are encoded: a name as a str, its shortest form.

    `middle` is fingerprint and `binary_mtime_ns`, as they stand behind the blob.
    """
    blob_bytes = len(blob)
    header = bin_header(blob_bytes)
    body = b"".join((b"\x95", name, header, blob, middle, encode_int(cached_at_ns)))
    buffer = PREFIX.pack(crc32(body), len(body)) + body
    start = PREFIX_BYTES + 1 + len(name) + len(header)
    return _new_record(
        Record, (buffer, PREFIX_BYTES, len(buffer), binary_mtime_ns, start, start + blob_bytes)
    )


def body_start(name_bytes: int, blob_start: int, blob_bytes: int) -> int:
    """Return where the body begins whose blob begins at `blob_start`.

    Shortest forms leave no choice.
    """
    name_header = 1 if name_bytes < 32 else 2 if name_bytes < 0x100 else 3
    return blob_start - _blob_header_bytes(blob_bytes) - name_bytes - name_header - 1


def body_bytes(buffer: bytes | memoryview, start: int) -> int:
    """Return the length of the body that begins at `start`, as its prefix says."""
    return _unpack_body_bytes(buffer, start - BODY_BYTES.size)[0]


def name_span(record: Record) -> tuple[int, int]:
    """Return where the name's own bytes begin and end in the record's buffer."""
    first = record.buffer[record.start + 1]
    header = 1 if first < 0xC0 else 2 if first == 0xD9 else 3
    return record.start + 1 + header, record.blob_start - _blob_header_bytes(record.blob_bytes)


def parse_record(buffer: bytes | memoryview, start: int, end: int) -> Record:
    """Return the record whose body is `buffer[start:end]`, read from its bytes.

    The body must have passed its checksum: its form is relied on here, not checked.
    Raises ValueError or IndexError where it is no body all the same.
    """
    position, name_bytes = str_span(buffer, start + 1)
    if name_bytes < 0:
        raise ValueError("a record does not begin with a name")
    blob_start, blob_bytes = bin_span(buffer, position + name_bytes)
    if blob_bytes < 0:
        raise ValueError("a record holds no blob")
    blob_end = blob_start + blob_bytes
    position, fingerprint_bytes = bin_span(buffer, blob_end)
    mtime_at = blob_end + 1 if fingerprint_bytes < 0 else position + fingerprint_bytes
    return Record(buffer, start, end, decode_int(buffer, mtime_at)[0], blob_start, blob_end)


def fingerprint_of(record: Record) -> bytes | None:
    """Return the fingerprint that was stored with an entry."""
    position, size = bin_span(record.buffer, record.blob_end)
    return None if size < 0 else bytes(record.buffer[position : position + size])


def _blob_header_bytes(blob_bytes: int) -> int:
    return 2 if blob_bytes < 0x100 else 3 if blob_bytes < 0x10000 else 5
