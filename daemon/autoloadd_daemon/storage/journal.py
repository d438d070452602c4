"""One journal file: appended to by the daemon that made it, removed when an image covers it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from autoloadd_daemon.errors import DescriptorsError, StorageError, storage_error

from .records import HEADER_BYTES, JournalHeader, parts_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .bulks import CommittedBulk
    from .files import Files


PAGE_BYTES = 4096

_MOST_ROOM_BYTES = 1024 * 1024
_LEAST_ROOM_BYTES = 2 * PAGE_BYTES
_ROOM_FRACTION = 4


def room_bytes(end: int) -> int:
    """Return how much room a journal of a length gets at a time: a quarter of it; 0 is none.

    A short one has none: it may be the only one of its kind for a while, of hundreds.
    """
    size = min(end // _ROOM_FRACTION, _MOST_ROOM_BYTES) // PAGE_BYTES * PAGE_BYTES
    return size if size >= _LEAST_ROOM_BYTES else 0


def journal_name(sequence: int) -> str:
    """Return the file name of a shard's journal."""
    return f"journal.{sequence:08d}"


class Journal:
    """Appends frames, and knows how far the file is good and how far it is on stable storage.

    `append` runs on the loop, `sync` and what closes the file in the syncing thread; never two of a
    kind at once. `end` and `synced` are offsets in bytes. `failed` says why the file takes nothing
    any more, if so. One that has ended gives its descriptor back with its last sync.

    One that is synced often has room behind its end: zeros that are on the disk already. A sync of
    bytes written over them has only these bytes to bring there, not the file's size and its place
    on the disk too: measured on ext4, 0.13 ms instead of 0.25.
    """

    def __init__(
        self,
        files: Files,
        directory: str,
        header: JournalHeader,
        end: int,
        *,
        descriptor: int | None = None,
        open_journals: set[Journal] | None = None,
    ) -> None:
        """Without a `descriptor` it is one that an earlier daemon wrote, and has ended.

        It is in `open_journals` as long as it holds a descriptor. Raises OSError.
        """
        self.header = header
        self.path = f"{directory}/{journal_name(header.sequence)}"
        self.end = end
        self.synced = 0
        self._room_end = end
        self._may_have_room = True
        self.bulk_bytes = 0
        self.failed: str | None = None
        self.has_ended = descriptor is None
        self._is_inherited = descriptor is None
        self._files = files
        self._descriptor = descriptor
        self._identity = files.identity(self.path)
        self._open_journals: set[Journal] = set() if open_journals is None else open_journals
        self._bulks: list[CommittedBulk] = []
        self._attached_at: list[int] = []
        self._unsynced_bulks: list[CommittedBulk] = []
        self._directory = directory
        # Names in the directory that go with the journal: its own, and its bulks' after a rename.
        # One thread adds, the other notes how many are on stable storage: no lock is needed.
        self._named = 1
        self._named_durably = 0
        if descriptor is not None:
            self._open_journals.add(self)

    @property
    def wants_sync(self) -> bool:
        """Tell whether a sync has anything to do: bytes to bring to the disk, or a last one."""
        is_over = self.has_ended and self._descriptor is not None
        return self.failed is None and (self.synced < self.end or is_over)

    @property
    def disk_bytes(self) -> int:
        """What the file takes with its room and its bulks."""
        return max(self.end, self._room_end) + self.bulk_bytes

    def append(self, frames: list[bytes | memoryview], bulks: Sequence[CommittedBulk] = ()) -> None:
        """Write frames, and attach the bulks that they name.

        Raises StorageError; then the file is as it was, or `failed`.
        """
        self._check()
        assert self._descriptor is not None, "appended to after its end"
        try:
            if self._files.identity(self.path) != self._identity:
                raise self._fail(f"{self.path} was removed or replaced while the daemon ran")
            self._files.append(self._descriptor, frames)
        except OSError as exc:
            self._cut_back()
            raise storage_error(self.path, exc) from exc
        # Before `end` grows: a sync that takes the frame in must take its bulk in.
        for bulk in bulks:
            self.attach(bulk)
        self.end += parts_bytes(frames)

    def attach(self, bulk: CommittedBulk) -> None:
        """Make a staged file part of this journal: synced before it, removed with it."""
        self.bulk_bytes += bulk.size
        self._bulks.append(bulk)
        self._attached_at.append(self.end)
        self._unsynced_bulks.append(bulk)
        self._named += 1

    def cut_back(self, end: int) -> None:
        """Take frames back that were appended but are refused, and the bulks that they name.

        Runs where syncs run, and while nothing is appended.
        """
        kept = sum(at < end for at in self._attached_at)
        for bulk in self._bulks[kept:]:
            self.bulk_bytes -= bulk.size
            if bulk in self._unsynced_bulks:
                self._unsynced_bulks.remove(bulk)
        del self._bulks[kept:], self._attached_at[kept:]
        self.end = end
        self.synced = min(self.synced, end)
        self._cut_back()

    def sync(self, *, makes_room: bool = False) -> None:
        """Return when everything appended before the call is on stable storage.

        `makes_room`: nothing is appended meanwhile, and more syncs will follow soon. Raises
        StorageError. The kernel reports a failed sync once and drops the pages: a second
        sync would say OK and the data would be gone. So this file is never synced again.
        """
        self._check()
        # Read before `end`: after the end nothing is appended.
        is_over = self.has_ended
        target, named = self.end, self._named
        if target != self.synced:
            if self._is_inherited:
                self._replace_inherited()
            elif makes_room and not is_over:
                self._make_room()
            self._sync(named)
            self.synced = target
        if is_over:
            self._give_room_back()
            self.close()

    def _make_room(self) -> None:
        start, size = max(self.end, self._room_end), room_bytes(self.end)
        if start - self.end > size // 2 or not (size and self._may_have_room):
            return
        assert self._descriptor is not None, "not ended"
        self._room_end = start + size
        try:
            self._files.overwrite(self._descriptor, bytes(size), start)
        except OSError:
            # A full disk, for instance. It is no fault: appends find out whether they fit.
            self._may_have_room = False

    def _give_room_back(self) -> None:
        if self._descriptor is not None and self._room_end > self.end:
            # Where that fails recovery finds zeros, as after a crash.
            with suppress(OSError):
                self._files.truncate(self._descriptor, self.end)
                self._room_end = self.end

    def _replace_inherited(self) -> None:
        try:
            for bulk in self._bulks:
                self._files.replace_by_copy(bulk.path, bulk.size)
            self._files.replace_by_copy(self.path, self.end)
            self._identity = self._files.identity(self.path)
        except OSError as exc:
            # Every attempt writes new files: this may be tried again.
            raise storage_error(f"{self.path} cannot be copied", exc) from exc
        self._unsynced_bulks.clear()
        self._is_inherited = False

    def _sync(self, named: int) -> None:
        try:
            for bulk in list(self._unsynced_bulks):
                bulk.sync()
                self._unsynced_bulks.remove(bulk)
            if self._descriptor is not None:
                self._files.sync_data(self._descriptor)
            if self._named_durably < named:
                self._files.sync_directory(self._directory)
                self._files.sync_directory(self._directory.rpartition("/")[0])
                self._named_durably = named
        except OSError as exc:
            error = storage_error(f"{self.path}: sync failed", exc)
            if not isinstance(error, DescriptorsError):
                # Only opening can lack a descriptor: no sync failed.
                self.failed = str(error)
            raise error from exc

    def close(self) -> None:
        """Close the file, if it is open; it stays where it is."""
        descriptor, self._descriptor = self._descriptor, None
        self._open_journals.discard(self)
        if descriptor is not None:
            # What was not synced before is covered by an image, refused, or lost anyway.
            with suppress(OSError):
                self._files.close(descriptor)

    def remove(self) -> None:
        """Remove the file and its bulks: an image on stable storage holds what they held.

        Raises OSError. The journal goes first: a bulk without its journal is swept up by recovery,
        a journal without its bulk would look like damage. Another file in its place stays.
        """
        if self._files.identity(self.path) == self._identity:
            self._files.remove(self.path)
        for bulk in self._bulks:
            self._files.remove(bulk.path)

    def _check(self) -> None:
        if self.failed is not None:
            raise StorageError(self.failed)

    def _cut_back(self) -> None:
        if self._descriptor is None:
            return
        try:
            self._files.truncate(self._descriptor, self.end)
            self._room_end = self.end
        except OSError as exc:
            self._fail(f"{self.path}: cannot be cut back: {exc.strerror}")

    def _fail(self, reason: str) -> StorageError:
        self.failed = reason
        return StorageError(reason)


def create_journal(
    files: Files,
    directory: str,
    header: JournalHeader,
    open_journals: set[Journal] | None = None,
) -> Journal:
    """Create a journal's file with its header. Raises StorageError; then there is no file."""
    path = f"{directory}/{journal_name(header.sequence)}"
    try:
        descriptor = files.create(path)
        try:
            files.append(descriptor, [header.pack()])
            return Journal(
                files,
                directory,
                header,
                HEADER_BYTES,
                descriptor=descriptor,
                open_journals=open_journals,
            )
        except OSError:
            files.close(descriptor)
            with suppress(OSError):
                files.remove(path)
            raise
    except OSError as exc:
        raise storage_error(path, exc) from exc
