"""An image that is still in its file: entries are served from it before all of it was read.

A start that reads and checks 50 MB first is 60 ms later. So only the header is read; a get reads
its slot and its record, and nothing is believed but what the record's own checksum covers: name,
blob, fingerprint and times. The index is only a hint where to look. Whatever it says wrongly is a
miss, until all of the file is in memory and checked (`load`).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING
from zlib import crc32

from autoloadd_daemon.errors import DamageError
from autoloadd_protocol.errors import ImageError
from autoloadd_protocol.image import (
    HEADER_BYTES,
    SLOT,
    SLOT_BYTES,
    parse_header,
    slot_key,
)
from autoloadd_protocol.limits import BLOB_BYTES, FINGERPRINT_BYTES
from autoloadd_protocol.record import PREFIX, PREFIX_BYTES, Record, body_start

from .files import open_to_read
from .images import DamageOf, copy_image
from .records import parse_records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autoloadd_protocol.image import ImageHeader

    from .images import SealedImage

_SLOTS_AT_ONCE = 4
_USUAL_TAIL_BYTES = 128
"""Read behind a blob at once: most fingerprints, the two times."""
_TAIL_BYTES = FINGERPRINT_BYTES + 64
_CUT = "the file was cut while it was read"


class ImageFile:
    """Looks names up in an image's file. Never maps it: one that is cut would kill the daemon.

    Raises ImageError for a header that is none or a wrong length, OSError.
    """

    descriptor: None = None
    """There is no memory that could be shared yet."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = -1
        self._file = open_to_read(path)
        self.header: ImageHeader = parse_header(os.pread(self._file, HEADER_BYTES, 0))
        size = os.fstat(self._file).st_size
        if size != self.header.total_bytes:
            raise ImageError(f"{size:,} bytes, the header says {self.header.total_bytes:,}")

    def __del__(self) -> None:
        # Not earlier: whoever reads from the shard as it was may be at it still.
        if self._file >= 0:
            os.close(self._file)

    def __len__(self) -> int:
        return self.header.entries

    def look_up(self, name: bytes) -> Record | None:
        """Return the record that is stored under a name, in a buffer of its own.

        None where there is none, or none that is whole: a disk that fails is a miss.
        """
        key = slot_key(name)
        with suppress(OSError, DamageError):
            for stored, start, end in self._slots_from(crc32(name)):
                if stored == key:
                    found = self._read(len(name), start, end)
                    if found is not None and found[0] == name:
                        return found[1]
        return None

    def load(self) -> SealedImage:
        """Return a checked copy in memory. Raises DamageError; OSError where it is no damage.

        Runs 0.9 ms for each MB, without the GIL.
        """
        with DamageOf(self._path):
            with open(self._file, "rb", buffering=0, closefd=False) as file:
                image = copy_image(file)
            if image.header != self.header:
                raise ImageError("it was changed while it was read")
            return image

    def _slots_from(self, checksum: int) -> Iterator[tuple[bytes, int, int]]:
        """Yield what the slots say in which a name may be, as (key, blob's start, blob's end)."""
        mask = (self.header.slots - 1) * SLOT_BYTES
        position = checksum & mask
        # Bounded: a damaged table may have no free slot.
        for _ in range(self.header.slots // _SLOTS_AT_ONCE + 1):
            size = min(_SLOTS_AT_ONCE * SLOT_BYTES, mask + SLOT_BYTES - position)
            slots = self._pread(size, HEADER_BYTES + position)
            for key, _mtime, start, end in SLOT.iter_unpack(slots):
                if not start:
                    return
                yield key, start, end
            position = (position + size) & mask

    def _read(self, name_bytes: int, start: int, end: int) -> tuple[bytes, Record] | None:
        """Return (name, record) whose blob should be there, or None where none can be.

        Raises DamageError where what is there is not whole.
        """
        begin = body_start(name_bytes, start, end - start) - PREFIX_BYTES
        if not self.header.records_at <= begin < start <= end <= self.header.total_bytes:
            return None
        if end - start > BLOB_BYTES:
            return None
        data = os.pread(self._file, end - begin + _USUAL_TAIL_BYTES, begin)
        if len(data) < PREFIX_BYTES:
            raise DamageError(_CUT)
        size = PREFIX_BYTES + PREFIX.unpack_from(data)[1]
        if size > end - begin + _TAIL_BYTES:
            return None
        if size > len(data):
            data = self._pread(size, begin)
        return next(parse_records(data, 0, size), None)

    def _pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._file, size, offset)
        if len(data) < size:
            raise DamageError(_CUT)
        return data


def open_image(path: str) -> ImageFile | None:
    """Return an image whose header is good and whose length is right; None where is no file.

    Raises DamageError, OSError where it is no damage, as `load_image` does.
    """
    with suppress(FileNotFoundError), DamageOf(path):
        return ImageFile(path)
    return None
