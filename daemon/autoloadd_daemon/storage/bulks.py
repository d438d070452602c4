"""Staged bulks: what a `bulk_*` write sends, in a file of its own until it is committed.

The file holds records one after another, as a journal does, without frames: a frame in the journal
names it, and makes all of it part of the shard at once.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from autoloadd_daemon.errors import DamageError, UnreadableError, storage_error

from .files import is_damage
from .records import BulkFile, parse_records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autoloadd_protocol.record import Record

    from .files import Files


def staged_name(number: int) -> str:
    """Return the file name of a bulk that is not committed: recovery removes such files."""
    return f"staged.{number:08d}"


def bulk_name(number: int) -> str:
    """Return the file name of a bulk that a frame of a journal names."""
    return f"bulk.{number:08d}"


class BulkNumbers:
    """Numbers of which none comes twice.

    A shard that is dropped and begun again has the same directory: what was staged before the drop
    must not meet what is staged after it.
    """

    def __init__(self) -> None:
        self._last = 0

    def leave_out(self, number: int) -> None:
        """Give no number up to this one."""
        self._last = max(self._last, number)

    def take(self) -> int:
        """Return the next number, at least 1."""
        self._last += 1
        return self._last


class CommittedBulk(NamedTuple):
    """A staged file that is part of a journal."""

    files: Files
    path: str
    size: int

    def sync(self) -> None:
        """Return when the file's bytes are on stable storage. Raises OSError."""
        descriptor = self.files.reopen(self.path)
        try:
            self.files.sync_data(descriptor)
        finally:
            self.files.close(descriptor)


class StagedBulk:
    """Takes entries until the commit. `stored_bytes` counts towards the daemon's bounds."""

    def __init__(
        self, files: Files, directory: str, *, number: int, mode: str, built_at_ns: int | None
    ) -> None:
        """Create the file. Raises StorageError."""
        self.mode = mode
        self.number = number
        self.built_at_ns = built_at_ns
        self.records: dict[bytes, Record] = {}
        self.stored_bytes = 0
        self._checksum = 0
        self._files = files
        self._directory = directory
        self._path = f"{directory}/{staged_name(number)}"
        self._is_open = True
        try:
            files.make_directory(directory)
            self._descriptor = files.create(self._path)
        except OSError as exc:
            self._remove_spare_directory()
            raise storage_error(self._path, exc) from exc

    def add(self, entries: Iterable[tuple[bytes, Record]]) -> int:
        """Stage entries; a name that was added before is replaced. Return how many there are now.

        Raises StorageError: the bulk cannot go on, `discard` it.
        """
        added = dict(entries)
        stored = [record.stored() for record in added.values()]
        try:
            self._files.append(self._descriptor, stored)
        except OSError as exc:
            raise storage_error(self._path, exc) from exc
        for part in stored:
            self._checksum = crc32(part, self._checksum)
            self.stored_bytes += len(part)
        for name in added:
            # Taken out first, so that the order is the order of the last change.
            self.records.pop(name, None)
        self.records.update(added)
        return len(self.records)

    def commit(self) -> tuple[BulkFile, CommittedBulk]:
        """Give the file the name that a frame will name. Raises StorageError."""
        path = f"{self._directory}/{bulk_name(self.number)}"
        try:
            self._files.rename(self._path, path)
            self._path = path
            self._close()
        except OSError as exc:
            raise storage_error(self._path, exc) from exc
        described = BulkFile(
            self.mode, self.number, self.stored_bytes, self._checksum, self.built_at_ns
        )
        return described, CommittedBulk(self._files, path, self.stored_bytes)

    def discard(self) -> None:
        """Close and remove the file. Raises OSError; recovery would remove it then.

        Of a bulk that was its shard's first write, no directory stays either.
        """
        self._close()
        self._files.remove(self._path)
        self._remove_spare_directory()

    def _remove_spare_directory(self) -> None:
        with suppress(OSError):
            self._files.remove_directory(self._directory)

    def _close(self) -> None:
        # Never twice, also after an error: the number may be somebody else's by then.
        if self._is_open:
            self._is_open = False
            self._files.close(self._descriptor)


def read_bulk(files: Files, directory: str, bulk: BulkFile) -> dict[bytes, Record]:
    """Return what a committed bulk holds. Raises DamageError, OSError where it is no damage."""
    path = f"{directory}/{bulk_name(bulk.number)}"
    try:
        data = files.read(path)
    except OSError as exc:
        if isinstance(exc, FileNotFoundError):
            raise DamageError(f"{path}: {exc.strerror}") from exc
        if is_damage(exc):
            raise UnreadableError(f"{path}: {exc.strerror}") from exc
        raise
    if len(data) != bulk.size or crc32(data) != bulk.checksum:
        raise DamageError(f"{path}: not what was committed")
    records: dict[bytes, Record] = {}
    for name, record in parse_records(data, 0, len(data)):
        records.pop(name, None)
        records[name] = record
    return records
