"""Writes: what a client asked the writer for, as the frames of the journal and as the change.

Each is made by its method with the parameters checked, and answered once: `done` is called with
the outcome, which is the result, or the error that refuses it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from .storage import records

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from autoloadd_protocol.errors import RequestError
    from autoloadd_protocol.page import Page
    from autoloadd_protocol.producer import Producer
    from autoloadd_protocol.record import Record

    from .shard import Shard
    from .storage.bulks import CommittedBulk, StagedBulk

    Done = Callable[[object | RequestError], None]


_NAME_OVERHEAD_BYTES = 41


class Write(ABC):
    """One change of one shard. `sync` is `memory`, `write` or `fsync`.

    A write that `needs_shard` has nothing to do where its producer has none: its result is 0.
    """

    needs_shard: ClassVar[bool] = False
    changes: ClassVar[bool] = True

    def __init__(self, producer: Producer, sync: str, done: Done) -> None:
        self.producer = producer
        self.sync = sync
        self.done = done
        self.outcome: object | RequestError = None
        self.stored_bytes = 0
        """What it holds in memory while it waits; a bulk is counted as staged."""

    def prepare(self) -> None:
        """Do what must be done before the frames. Raises StorageError: only this is refused."""
        return

    def announce(self, page: Page, generation: int) -> None:
        """Note on the shard's page what the frames will change."""
        return

    @abstractmethod
    def frames(self, generation: int, synced: int) -> list[bytes | memoryview]:
        """Return the frame that the journal gets, in parts."""

    @abstractmethod
    def apply(self, shard: Shard, generation: int) -> object:
        """Make the change; return the result for the client."""

    @property
    def stored_names(self) -> Collection[bytes]:
        """The names that it stores entries under."""
        return ()

    def give_up(self) -> None:
        """Undo `prepare` of a write that is refused. Raises OSError."""
        return

    @property
    def bulk(self) -> CommittedBulk | None:
        """The staged file that goes with the frames, if there is one."""
        return None


class Put(Write):
    """Store entries, all at once."""

    def __init__(
        self, producer: Producer, sync: str, done: Done, entries: Sequence[tuple[bytes, Record]]
    ) -> None:
        super().__init__(producer, sync, done)
        self.entries = entries
        self.stored_bytes = sum([record.stored_bytes for _, record in entries])

    def announce(self, page: Page, generation: int) -> None:
        """Note the names."""
        page.touch_each([name for name, _ in self.entries], generation)

    def frames(self, generation: int, synced: int) -> list[bytes | memoryview]:
        """Return the records behind one frame's head."""
        return records.encode_put(generation, synced, [record for _, record in self.entries])

    @property
    def stored_names(self) -> Collection[bytes]:
        """The entries' names."""
        return [name for name, _ in self.entries]

    def apply(self, shard: Shard, generation: int) -> object:
        """Store the entries; the result is the generation."""
        shard.put(self.entries)
        return generation


class Delete(Write):
    """Remove entries."""

    needs_shard: ClassVar[bool] = True

    def __init__(self, producer: Producer, sync: str, done: Done, names: Sequence[bytes]) -> None:
        super().__init__(producer, sync, done)
        self.names = names
        self.stored_bytes = sum(map(len, names)) + _NAME_OVERHEAD_BYTES * len(names)

    def announce(self, page: Page, generation: int) -> None:
        """Note the names."""
        page.touch_each(self.names, generation)

    def frames(self, generation: int, synced: int) -> list[bytes | memoryview]:
        """Return a frame with the names."""
        return records.encode_delete(generation, synced, self.names)

    def apply(self, shard: Shard, generation: int) -> object:
        """Remove the entries; the result is how many there were."""
        return shard.delete(self.names)


class Clear(Write):
    """Remove everything."""

    needs_shard: ClassVar[bool] = True

    def announce(self, page: Page, generation: int) -> None:
        """Note a change of everything."""
        page.touch_all(generation)

    def frames(self, generation: int, synced: int) -> list[bytes | memoryview]:
        """Return a frame without a payload."""
        return records.encode_clear(generation, synced)

    def apply(self, shard: Shard, generation: int) -> object:
        """Remove everything; the result is how many entries there were."""
        return shard.clear(generation)


class CommitBulk(Write):
    """Make a staged bulk visible, all at once."""

    def __init__(self, producer: Producer, sync: str, done: Done, staged: StagedBulk) -> None:
        super().__init__(producer, sync, done)
        self.staged = staged
        self._described: records.BulkFile | None = None
        self._committed: CommittedBulk | None = None

    def prepare(self) -> None:
        """Give the staged file its lasting name."""
        self._described, self._committed = self.staged.commit()

    def announce(self, page: Page, generation: int) -> None:
        """Note the names; of a replace, everything."""
        if self.staged.mode == "replace":
            page.touch_all(generation)
        else:
            page.touch_each(self.staged.records.keys(), generation)

    def frames(self, generation: int, synced: int) -> list[bytes | memoryview]:
        """Return a frame that names the file."""
        assert self._described is not None
        return records.encode_bulk(generation, synced, self._described)

    def apply(self, shard: Shard, generation: int) -> object:
        """Store what was staged, a replace in place of everything; the result: the generation.

        A shard that has no entries besides takes the time that the bulk was built at.
        """
        if self.staged.mode == "replace":
            shard.clear(generation)
        if self.staged.built_at_ns is not None and not shard.entries:
            shard.built_at_ns = self.staged.built_at_ns
        shard.put(self.staged.records.items())
        return generation

    def give_up(self) -> None:
        """Remove the file, under whichever name: no frame counts that names it."""
        self.staged.discard()

    @property
    def stored_names(self) -> Collection[bytes]:
        """The names of what was staged."""
        return self.staged.records.keys()

    @property
    def bulk(self) -> CommittedBulk | None:
        """The staged file under its lasting name."""
        return self._committed


class Flush(Write):
    """Bring everything that was written before to stable storage. Changes nothing."""

    needs_shard: ClassVar[bool] = True
    changes: ClassVar[bool] = False

    def frames(self, generation: int, synced: int) -> list[bytes | memoryview]:
        """Return nothing: a flush is a sync without a change."""
        return []

    def apply(self, shard: Shard, generation: int) -> object:
        """Change nothing; the result is the generation that is on stable storage now."""
        return shard.generation


class Drop:
    """Remove a whole shard: nothing else is written meanwhile."""

    sync = "write"
    stored_bytes = 0

    def __init__(self, shard_id: str, done: Done) -> None:
        self.shard_id = shard_id
        self.done = done
