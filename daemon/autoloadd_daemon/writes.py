"""Writes: what a client asked the writer for, as the frames of the journal and as the change.

Each is made by its method with the parameters checked, and answered once: `done` is called with
the outcome, which is the result, or the error that refuses it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
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


@dataclass(eq=False)
class Write(ABC):
    """One change of one shard. `sync` is `memory`, `write` or `fsync`.

    A write that `needs_shard` has nothing to do where its producer has none: its result is 0.
    """

    needs_shard: ClassVar[bool] = False
    changes: ClassVar[bool] = True

    producer: Producer
    sync: str
    done: Done
    outcome: object | RequestError = field(default=None, init=False)

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

    @property
    def stored_bytes(self) -> int:
        """What it holds in memory while it waits; a bulk is counted as staged."""
        return 0


@dataclass(eq=False)
class Put(Write):
    """Store entries, all at once."""

    entries: Sequence[tuple[bytes, Record]]

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

    @property
    def stored_bytes(self) -> int:
        """The records' bytes."""
        return sum(record.stored_bytes for _, record in self.entries)

    def apply(self, shard: Shard, generation: int) -> object:
        """Store the entries; the result is the generation."""
        shard.put(self.entries, generation)
        return generation


@dataclass(eq=False)
class Delete(Write):
    """Remove entries."""

    needs_shard: ClassVar[bool] = True

    names: Sequence[bytes]

    @property
    def stored_bytes(self) -> int:
        """The names' bytes, and what Python takes for each."""
        return sum(map(len, self.names)) + _NAME_OVERHEAD_BYTES * len(self.names)

    def announce(self, page: Page, generation: int) -> None:
        """Note the names."""
        page.touch_each(self.names, generation)

    def frames(self, generation: int, synced: int) -> list[bytes | memoryview]:
        """Return a frame with the names."""
        return records.encode_delete(generation, synced, self.names)

    def apply(self, shard: Shard, generation: int) -> object:
        """Remove the entries; the result is how many there were."""
        return shard.delete(self.names, generation)


@dataclass(eq=False)
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


@dataclass(eq=False)
class CommitBulk(Write):
    """Make a staged bulk visible, all at once."""

    staged: StagedBulk
    _described: records.BulkFile | None = field(default=None, init=False)
    _committed: CommittedBulk | None = field(default=None, init=False)

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
        """Store what was staged, a replace in place of everything; the result: the generation."""
        if self.staged.mode == "replace":
            shard.clear(generation)
            shard.built_at_ns = self.staged.built_at_ns or shard.built_at_ns
        shard.put(self.staged.records.items(), generation)
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


@dataclass(eq=False)
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
