"""Reading zshrs's file, as strictly as the checker that zshrs itself runs before each use.

Everything a file refers to has to lie inside it, in the order in which it is written, nothing
twice; text is UTF-8; every name is found in the slot where it lies. Beyond that checker, the header
has to be one of zshrs's, and times have to fit ns. The file has no checksum: a changed byte of a
blob, or a time, is not told.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from autoloadd_protocol.limits import PRODUCER_TEXT_BYTES
from autoloadd_protocol.producer import POINTER_WIDTHS

from .errors import DamagedFileError
from .layout import (
    DISPLACEMENT_BYTES,
    DISPLACEMENTS_AT,
    EMPTY_BUCKET,
    ENTRIES_AT,
    ENTRY_BYTES,
    FIRST_SEED,
    FORMAT_VERSION,
    INLINE_BYTES,
    LAYOUTS,
    MAGIC,
    OUT_OF_LINE,
    ROOT,
    ROOT_BYTES,
    TEXT_AT,
    Header,
    Layout,
)
from .seahash import bucket_hash, seeded_hash, seeded_name

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SECONDS = (2**63 - 1) // 10**9
"""The latest time whose ns fit 64 bits; the earliest is as far before 1970."""

_MAGIC = MAGIC.to_bytes(4, "little")


class StoredEntry(NamedTuple):
    """One entry of a file: its blob is `data[start:end]`. Times are seconds since the epoch."""

    name: str
    binary_mtime_secs: int
    cached_at_secs: int
    start: int
    end: int


class ShardFile(NamedTuple):
    """A file that passed every check, its entries in the order of the file."""

    data: bytes
    layout: Layout
    header: Header
    entries: tuple[StoredEntry, ...]

    def blob(self, entry: StoredEntry) -> bytes:
        """Return an entry's blob."""
        return self.data[entry.start : entry.end]


def read_shard_file(data: bytes) -> ShardFile:
    """Return what a file holds. Raises DamagedFileError, which says where and why."""
    if len(data) < ROOT_BYTES or len(data) % 8:
        raise DamagedFileError(
            len(data), "the file ends here; it must have a multiple of 8 bytes, and 48 at least"
        )
    return _Reader(data).read()


class _Reader:
    """One pass over a file. `_cursor` is where the last part ended that something refers to."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._root = len(data) - ROOT_BYTES
        self._cursor = 0
        self._end = self._root

    def read(self) -> ShardFile:
        layout = self._find_layout()
        header, count, displacements_offset, entries_offset = ROOT.unpack_from(
            self._data, self._root
        )
        self._check_count(count)
        found = self._read_header(layout, header)
        displacements = self._read_displacements(displacements_offset, count)
        entries_at = self._place_entries(entries_offset, count)
        self._end = entries_at
        entries = tuple(
            self._read_entry(layout, entries_at + slot * ENTRY_BYTES) for slot in range(count)
        )
        self._check_lookups(layout, entries, displacements, entries_at)
        return ShardFile(self._data, layout, found, entries)

    def _find_layout(self) -> Layout:
        for layout in LAYOUTS.values():
            if self._data.startswith(_MAGIC, self._root + layout.magic_at):
                return layout
        raise DamagedFileError(self._root, "zshrs's mark is not in the header, where it should be")

    def _check_count(self, count: int) -> None:
        # Before anything is made that is as large as a number in the file says.
        if count * (DISPLACEMENT_BYTES + ENTRY_BYTES) > self._root:
            at = self._root + ROOT.size - 16
            raise DamagedFileError(at, f"{count:,} entries do not fit a file of this size")

    def _read_header(self, layout: Layout, packed: bytes) -> Header:
        at = self._root
        header = dict(zip(layout.header_fields, layout.header.unpack(packed), strict=True))
        version = self._read_string(header["version"], at + layout.version_at)
        if header["format_version"] != FORMAT_VERSION:
            raise DamagedFileError(
                at + layout.magic_at + 4,
                f"format version {header['format_version']:,}; only {FORMAT_VERSION} is known",
            )
        if header["pointer_width"] not in POINTER_WIDTHS:
            raise DamagedFileError(
                at + layout.pointer_width_at, f"a pointer width of {header['pointer_width']:,}"
            )
        if not 0 < len(version.encode()) <= PRODUCER_TEXT_BYTES:
            raise DamagedFileError(
                at + layout.version_at,
                f"zshrs's version has 1 to {PRODUCER_TEXT_BYTES} bytes, this one "
                f"{len(version.encode()):,}",
            )
        built_at = self._check_seconds(header["built_at"], at + layout.built_at)
        return Header(version, header["pointer_width"], built_at)

    def _read_displacements(self, offset: int, count: int) -> tuple[int, ...]:
        pointer_at = self._root + DISPLACEMENTS_AT
        size = DISPLACEMENT_BYTES
        start = self._take(pointer_at, pointer_at + offset, size * count, alignment=size)
        displacements: tuple[int, ...] = Struct(f"<{count}I").unpack_from(self._data, start)
        for bucket, value in enumerate(displacements):
            if count <= value < FIRST_SEED:
                at = start + bucket * DISPLACEMENT_BYTES
                raise DamagedFileError(at, f"slot {value:,} of {count:,}")
        return displacements

    def _place_entries(self, offset: int, count: int) -> int:
        """Return where the entries begin. They come last: `_cursor` stays before the texts."""
        before = self._cursor
        pointer_at = self._root + ENTRIES_AT
        start = self._take(pointer_at, pointer_at + offset, ENTRY_BYTES * count, alignment=8)
        self._cursor = before
        return start

    def _read_entry(self, layout: Layout, at: int) -> StoredEntry:
        values = layout.entry.unpack_from(self._data, at)
        entry = dict(zip(layout.entry_fields, values, strict=True))
        name = self._read_string(entry["key"], at + layout.key_at)
        pointer_at = at + layout.blob_at
        start = self._take(pointer_at, pointer_at + entry["blob_offset"], entry["blob_bytes"])
        return StoredEntry(
            name,
            self._check_seconds(entry["mtime"], at + layout.mtime_at),
            self._check_seconds(entry["cached_at"], at + layout.cached_at),
            start,
            start + entry["blob_bytes"],
        )

    def _read_string(self, field: bytes, at: int) -> str:
        size = field[INLINE_BYTES]
        start = at
        if size & OUT_OF_LINE:
            size, offset = TEXT_AT.unpack(field)
            start = self._take(at, at + offset, size)
        elif size > INLINE_BYTES:
            raise DamagedFileError(at + INLINE_BYTES, f"{size} bytes of text in a field of 7")
        try:
            return self._data[start : start + size].decode()
        except UnicodeDecodeError as exc:
            raise DamagedFileError(start + exc.start, f"no UTF-8: {exc.reason}") from exc

    def _take(self, pointer_at: int, start: int, size: int, *, alignment: int = 1) -> int:
        """Return `start`, having moved on behind what lies there."""
        if not self._cursor <= start <= start + size <= self._end:
            raise DamagedFileError(
                pointer_at,
                f"it points to bytes {start:,} to {start + size:,}, which must lie between "
                f"{self._cursor:,} and {self._end:,}",
            )
        if start % alignment:
            raise DamagedFileError(
                pointer_at, f"it points to byte {start:,}, which is no multiple of {alignment}"
            )
        self._cursor = start + size
        return start

    def _check_seconds(self, seconds: int, at: int) -> int:
        if abs(seconds) > MAX_SECONDS:
            raise DamagedFileError(at, f"a time of {seconds:,} s: it does not fit 64 bits as ns")
        return seconds

    def _check_lookups(
        self,
        layout: Layout,
        entries: Sequence[StoredEntry],
        displacements: Sequence[int],
        entries_at: int,
    ) -> None:
        for slot, entry in enumerate(entries):
            if _look_up(entry.name.encode(), displacements) != slot:
                at = entries_at + slot * ENTRY_BYTES + layout.key_at
                raise DamagedFileError(at, f"zshrs would not find {entry.name!r:.80} in its slot")


def _look_up(name: bytes, displacements: Sequence[int]) -> int | None:
    """Return the slot in which zshrs looks for a name; None: nowhere."""
    count = len(displacements)
    found = displacements[bucket_hash(name) % count]
    if found == EMPTY_BUCKET:
        return None
    return found if found < FIRST_SEED else seeded_hash(found, seeded_name(name)) % count
