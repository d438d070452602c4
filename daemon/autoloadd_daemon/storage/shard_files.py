"""One shard's files while the daemon runs: its journals, until an image covers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoloadd_daemon.errors import StorageError, storage_error

from .bulks import BulkNumbers, CommittedBulk, StagedBulk
from .journal import Journal, create_journal
from .records import HEADER_BYTES, JournalHeader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoloadd_protocol.producer import Producer

    from .files import Files
    from .recovery import Recovered


class ShardFiles:
    """The journals that no image on disk covers yet, oldest first; writes go to the last one.

    A daemon never appends to a journal that an earlier one wrote: it begins a new one, whose header
    says how far the earlier one was good. A journal is made when its first frame comes.
    """

    def __init__(
        self,
        files: Files,
        directory: str,
        producer: Producer,
        epoch: int,
        numbers: BulkNumbers | None = None,
        open_journals: set[Journal] | None = None,
    ) -> None:
        """Both are shared by all shards: numbers of bulks, and journals that hold a descriptor."""
        self._numbers = BulkNumbers() if numbers is None else numbers
        self._open_journals: set[Journal] = set() if open_journals is None else open_journals
        self.directory = directory
        self.files = files
        self._producer = producer
        self._epoch = epoch
        self._journals: list[Journal] = []
        self._active: Journal | None = None
        self._next_sequence = 1
        self._previous_end = 0
        # Of the last frame that was appended, not of the last that was tried: a generation that
        # was refused must not look like a journal that is missing.
        self._last_generation = 0

    def take_over(self, recovered: Recovered) -> None:
        """Go on where recovery found the shard."""
        self._journals = list(recovered.journals)
        self._next_sequence = recovered.next_sequence
        self._previous_end = recovered.previous_end
        self._last_generation = recovered.generation
        self._numbers.leave_out(recovered.last_bulk)

    @property
    def journal_bytes(self) -> int:
        """Length of all journals that are needed, with their bulks, in bytes."""
        return sum(journal.end + journal.bulk_bytes for journal in self._journals)

    @property
    def disk_bytes(self) -> int:
        """The same with the room that is kept for what comes next."""
        return sum(journal.disk_bytes for journal in self._journals)

    @property
    def synced(self) -> int:
        """The offset in the active journal that is known to be on stable storage."""
        return 0 if self._active is None else self._active.synced

    @property
    def has_unsynced(self) -> bool:
        """Tell whether something was written that a power loss would take."""
        return any(
            journal.synced < journal.end and journal.failed is None for journal in self._journals
        )

    @property
    def wants_sync(self) -> bool:
        """Tell whether a sync has anything to do, be it to give descriptors back."""
        return any(journal.wants_sync for journal in self._journals)

    @property
    def is_open(self) -> bool:
        """Tell whether a journal is being written."""
        return self._active is not None

    @property
    def journal_count(self) -> int:
        """How many journals no image covers yet."""
        return len(self._journals)

    @property
    def failure(self) -> str | None:
        """Why the journals take nothing until an image was built, if so."""
        return next((j.failed for j in self._journals if j.failed is not None), None)

    def append(
        self,
        frames: list[bytes | memoryview],
        *,
        last_generation: int,
        built_at_ns: int,
        bulks: Sequence[CommittedBulk] = (),
    ) -> None:
        """Write frames, and keep the bulks that they name. Raises StorageError: nothing counts.

        `last_generation` is that of the last frame; `built_at_ns` the shard's, for a new journal.
        """
        failure = self.failure
        if failure is not None:
            raise StorageError(failure)
        if self._active is None:
            self._active = self._begin_journal(built_at_ns)
        self._active.append(frames, bulks)
        self._last_generation = last_generation

    def cut_back(self, end: int) -> None:
        """Take back what was appended behind `end`: its sync failed and it was refused."""
        if self._active is not None:
            # Where the journal was begun by these frames, its header stays.
            self._active.cut_back(max(end, HEADER_BYTES))

    @property
    def end(self) -> int:
        """Where the active journal ends."""
        return 0 if self._active is None else self._active.end

    def sync(self, *, makes_room: bool = False) -> None:
        """Return when everything appended before is on stable storage. Raises StorageError.

        `makes_room`: nothing is appended meanwhile, and more syncs will follow soon. Older journals
        first: a frame in a synced journal vouches for all journals before it.
        """
        for journal in list(self._journals):
            journal.sync(makes_room=makes_room)

    def stage(self, mode: str, built_at_ns: int | None) -> StagedBulk:
        """Return a new staged bulk. Raises StorageError."""
        number = self._numbers.take()
        return StagedBulk(
            self.files, self.directory, number=number, mode=mode, built_at_ns=built_at_ns
        )

    def rotate(self) -> list[Journal]:
        """End the active journal; return those that an image of this moment will cover."""
        if self._active is not None:
            self._previous_end = self._active.end
            self._active.has_ended = True
            self._active = None
        return list(self._journals)

    def forget(self, covered: list[Journal]) -> None:
        """Take out journals whose image is on stable storage; the caller removes their files."""
        self._journals = [journal for journal in self._journals if journal not in covered]

    def fail(self, reason: str) -> None:
        """Take nothing any more until an image was built."""
        for journal in self._journals:
            journal.failed = journal.failed or reason

    def close(self) -> None:
        """Close all files."""
        for journal in self._journals:
            journal.close()
        self._journals = []
        self._active = None

    def _begin_journal(self, built_at_ns: int) -> Journal:
        try:
            self.files.make_directory(self.directory)
        except OSError as exc:
            raise storage_error(self.directory, exc) from exc
        header = JournalHeader(
            self._producer,
            self._epoch,
            self._next_sequence,
            self._last_generation,
            self._previous_end,
            built_at_ns,
        )
        journal = create_journal(self.files, self.directory, header, self._open_journals)
        self._next_sequence += 1
        self._journals.append(journal)
        return journal
