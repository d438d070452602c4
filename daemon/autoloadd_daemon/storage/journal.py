"""One journal file: appended to by the daemon that made it, removed when an image covers it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from autoloadd_daemon.errors import StorageError

from .records import HEADER_BYTES, JournalHeader, parts_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .bulks import CommittedBulk
    from .files import Files


def journal_name(sequence: int) -> str:
    """Return the file name of a shard's journal."""
    return f"journal.{sequence:08d}"


class Journal:
    """Appends frames, and knows how far the file is good and how far it is on stable storage.

    `append` runs on the loop, `sync` in the syncing thread; never two of a kind at once. `end` and
    `synced` are offsets in bytes. `failed` says why the file takes nothing any more, if so.
    """

    def __init__(
        self, files: Files, directory: str, header: JournalHeader, descriptor: int, end: int
    ) -> None:
        self.header = header
        self.path = f"{directory}/{journal_name(header.sequence)}"
        self.end = end
        self.synced = 0
        self.bulk_bytes = 0
        self.failed: str | None = None
        self._files = files
        self._descriptor = descriptor
        self._bulks: list[CommittedBulk] = []
        self._unsynced_bulks: list[CommittedBulk] = []
        self._directory = directory
        # Names in the directory that go with the journal: its own, and its bulks' after a rename.
        # One thread adds, the other notes how many are on stable storage: no lock is needed.
        self._named = 1
        self._named_durably = 0

    def append(self, frames: list[bytes | memoryview], bulks: Sequence[CommittedBulk] = ()) -> None:
        """Write frames, and attach the bulks that they name.

        Raises StorageError; then the file is as it was, or `failed`.
        """
        self._check()
        try:
            if not self._files.links(self._descriptor):
                raise self._fail(f"{self.path} was removed while the daemon ran")
            self._files.append(self._descriptor, frames)
        except OSError as exc:
            self._cut_back()
            raise StorageError(f"{self.path}: {exc.strerror}") from exc
        # Before `end` grows: a sync that takes the frame in must take its bulk in.
        for bulk in bulks:
            self.attach(bulk)
        self.end += parts_bytes(frames)

    def attach(self, bulk: CommittedBulk) -> None:
        """Make a staged file part of this journal: synced before it, removed with it."""
        self.bulk_bytes += bulk.size
        self._bulks.append(bulk)
        self._unsynced_bulks.append(bulk)
        self._named += 1

    def cut_back(self, end: int) -> None:
        """Take frames back that were appended but are refused."""
        self.end = end
        self._cut_back()

    def sync(self) -> None:
        """Return when everything appended before the call is on stable storage.

        Raises StorageError. The kernel reports a failed sync once and drops the pages: a second
        sync would say OK and the data would be gone. So this file is never synced again.
        """
        self._check()
        target, named = self.end, self._named
        if target == self.synced:
            return
        try:
            for bulk in list(self._unsynced_bulks):
                bulk.sync()
                self._unsynced_bulks.remove(bulk)
            self._files.sync_data(self._descriptor)
            if self._named_durably < named:
                self._files.sync_directory(self._directory)
                self._files.sync_directory(self._directory.rpartition("/")[0])
                self._named_durably = named
        except OSError as exc:
            raise self._fail(f"{self.path}: sync failed: {exc.strerror}") from exc
        self.synced = target

    def close(self) -> None:
        """Close the file; it stays where it is."""
        self._files.close(self._descriptor)

    def remove(self) -> None:
        """Remove the file and its bulks: an image on stable storage holds what they held.

        Raises OSError. The journal goes first: a bulk without its journal is swept up by recovery,
        a journal without its bulk would look like damage.
        """
        self._files.remove(self.path)
        for bulk in self._bulks:
            self._files.remove(bulk.path)

    def _check(self) -> None:
        if self.failed is not None:
            raise StorageError(self.failed)

    def _cut_back(self) -> None:
        try:
            self._files.truncate(self._descriptor, self.end)
        except OSError as exc:
            self._fail(f"{self.path}: cannot be cut back: {exc.strerror}")

    def _fail(self, reason: str) -> StorageError:
        self.failed = reason
        return StorageError(reason)


def create_journal(files: Files, directory: str, header: JournalHeader) -> Journal:
    """Create a journal's file with its header. Raises StorageError; then there is no file."""
    path = f"{directory}/{journal_name(header.sequence)}"
    try:
        descriptor = files.create(path)
        try:
            files.append(descriptor, [header.pack()])
        except OSError:
            files.close(descriptor)
            with suppress(OSError):
                files.remove(path)
            raise
    except OSError as exc:
        raise StorageError(f"{path}: {exc.strerror}") from exc
    return Journal(files, directory, header, descriptor, HEADER_BYTES)


def reopen_journal(files: Files, directory: str, header: JournalHeader, end: int) -> Journal:
    """Return a journal that an earlier daemon wrote, to sync and remove it. Raises OSError."""
    descriptor = files.reopen(f"{directory}/{journal_name(header.sequence)}")
    return Journal(files, directory, header, descriptor, end)
