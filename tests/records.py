"""What tests ask of stored records beyond what the daemon asks."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from autoloadd_protocol.record import PREFIX, PREFIX_BYTES

if TYPE_CHECKING:
    from autoloadd_protocol.record import Record


def is_intact(record: Record) -> bool:
    """Tell whether the body still has the length and checksum that were stored with it."""
    checksum, size = PREFIX.unpack_from(record.buffer, record.start - PREFIX_BYTES)
    body = record.buffer[record.start : record.end]
    return bool(size == len(body) and checksum == crc32(body))
