"""The writer: everything that changes a shard goes through here, in one order.

It takes what is waiting as one batch: journal append; sync, if someone in the batch asked for it;
changes; answers. Nobody can see a change before it is in the journal. While a sync is under way the
next batch gathers: under load one sync serves many writes.

It is a state machine that the loop drives (`turn`), not a task of its own: a write without a sync
is appended, applied and answered in the turn in which it came, two task switches (20 us)
sooner. Only a sync leaves the loop, and its end comes back to it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoloadd_protocol.errors import BAD_REQUEST, NOT_DURABLE, SHUTTING_DOWN, RequestError

from .errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .builder import Builder
    from .catalog import Catalog
    from .metrics import Metrics
    from .shard import Shard
    from .storage.shard_files import ShardFiles
    from .storage.syncing import SyncThread
    from .writes import Write

_logger = logging.getLogger(__name__)

MAX_WAITING = 4096
"""Writes that may wait. Beyond it connections are not read: back-pressure, not memory."""

MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Bytes of entries that may wait, for instance while a disk stalls."""

_BATCH_WRITES = 1024


@dataclass(slots=True)
class Drop:
    """Remove a whole shard: nothing else is written meanwhile."""

    shard_id: str
    done: Callable[[object | RequestError], None]
    stored_bytes = 0


@dataclass(slots=True)
class _Group:
    """The writes of one batch that go to one shard, and where its journal ended before them."""

    shard: Shard
    files: ShardFiles
    writes: list[tuple[Write, int]] = field(default_factory=list)
    end_before: int = 0

    @property
    def wants_sync(self) -> bool:
        return any(write.sync == "fsync" for write, _ in self.writes)


class Writer:
    """Takes writes by `submit`, carries them out in `turn`."""

    def __init__(
        self, catalog: Catalog, builder: Builder, sync_thread: SyncThread, metrics: Metrics
    ) -> None:
        self.on_progress: Callable[[], None] = lambda: None
        self._catalog = catalog
        self._builder = builder
        self._sync_thread = sync_thread
        self._metrics = metrics
        self._waiting: deque[Write | Drop] = deque()
        self._waiting_bytes = 0
        self._busy = False
        self._closed = False
        self.not_before_ns = 0
        """No write is carried out before (CLOCK_MONOTONIC)."""

    @property
    def is_full(self) -> bool:
        """Tell whether connections should hold their writes back for now."""
        return len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES

    @property
    def is_idle(self) -> bool:
        """Tell whether everything that was submitted is answered."""
        return not self._waiting and not self._busy

    def submit(self, write: Write | Drop) -> None:
        """Queue a write; its `done` is called in this turn or a later one."""
        if self._closed and self.is_idle:
            write.done(RequestError(SHUTTING_DOWN, "the daemon is stopping: connect again later"))
        else:
            self._waiting.append(write)
            self._waiting_bytes += write.stored_bytes

    def close(self) -> None:
        """Refuse writes that come from now on; those that are waiting are carried out."""
        self._closed = True

    def turn(self) -> None:
        """Carry out what is waiting, as far as it goes without waiting for the disk."""
        self._carry_out()
        if not self._busy:
            self._builder.consider()
            # To make room it may have asked for a shard to be dropped.
            self._carry_out()

    def _carry_out(self) -> None:
        if self.not_before_ns and time.monotonic_ns() < self.not_before_ns:
            return
        while self._waiting and not self._busy and not self._builder.must_be_waited_for:
            first = self._waiting[0]
            if isinstance(first, Drop):
                if self._builder.is_building(first.shard_id):
                    return
                self._waiting.popleft()
                self._drop(first)
            else:
                self._begin(self._next_batch())

    def resume(self) -> None:
        """Go on after something that was waited for, and let connections see their answers."""
        self.turn()
        self.on_progress()

    def sync_in_background(self) -> None:
        """Bring what was written to stable storage soon: a power loss takes this long at most."""
        for _, files in self._catalog:
            if files.has_unsynced:
                self._sync_thread.submit(files.sync, self._note)

    def _next_batch(self) -> list[Write]:
        batch: list[Write] = []
        while self._waiting and len(batch) < _BATCH_WRITES:
            write = self._waiting[0]
            if isinstance(write, Drop):
                break
            batch.append(write)
            self._waiting.popleft()
            self._waiting_bytes -= write.stored_bytes
        return batch

    def _begin(self, batch: list[Write]) -> None:
        groups: dict[Shard, _Group] = {}
        now = time.monotonic_ns()
        for write in batch:
            if write.needs_shard and self._catalog.find(write.producer.shard_id()) is None:
                write.outcome = 0
                continue
            shard, files = self._catalog.open(write.producer)
            group = groups.setdefault(shard, _Group(shard, files))
            shard.last_used_ns = now
            try:
                write.prepare()
            except StorageError as exc:
                self._refuse(write, exc)
                continue
            shard.generation += bool(write.changes)
            group.writes.append((write, shard.generation))
        appended = [group for group in groups.values() if self._append(group)]
        if any(group.wants_sync for group in appended):
            self._sync(batch, appended)
        else:
            self._finish(batch, appended)

    def _append(self, group: _Group) -> bool:
        files = group.files
        group.end_before = files.end
        frames: list[bytes | memoryview] = []
        for write, generation in group.writes:
            frames += write.frames(generation, files.synced)
        if not frames:
            return True
        try:
            self._catalog.check_in_place()
            files.append(
                frames,
                last_generation=group.shard.generation,
                built_at_ns=group.shard.built_at_ns,
                bulks=[write.bulk for write, _ in group.writes if write.bulk is not None],
            )
        except StorageError as exc:
            self._refuse_group(group, exc)
            return False
        return True

    def _sync(self, batch: list[Write], groups: list[_Group]) -> None:
        """Sync in the thread, then finish; until then nothing else is begun."""
        failures: dict[Shard, StorageError] = {}

        def sync_all() -> None:
            for group in groups:
                if group.wants_sync:
                    try:
                        group.files.sync()
                    except StorageError as exc:
                        failures[group.shard] = exc

        def synced(_error: StorageError | None) -> None:
            self._busy = False
            self._metrics.count("syncs")
            for group in groups:
                if group.shard in failures:
                    group.files.cut_back(group.end_before)
                    self._refuse_group(group, failures[group.shard])
            self._finish(batch, [group for group in groups if group.shard not in failures])
            self.resume()

        self._busy = True
        self._sync_thread.submit(sync_all, synced)

    def _finish(self, batch: list[Write], groups: list[_Group]) -> None:
        """Make the changes, then answer everyone in the order in which they came."""
        for group in groups:
            for write, generation in group.writes:
                write.outcome = write.apply(group.shard, generation)
            self._metrics.count("writes", len(group.writes))
            self._note(None)
            self._builder.look_at(group.shard)
        for write in batch:
            write.done(write.outcome)

    def _drop(self, drop: Drop) -> None:
        if self._catalog.find(drop.shard_id) is None:
            drop.done(RequestError(BAD_REQUEST, f"there is no shard {drop.shard_id!r}"))
            return

        def dropped(error: StorageError | None) -> None:
            self._busy = False
            if error is None:
                self._catalog.forget(drop.shard_id)
                drop.done(None)
            else:
                self._note_failure(error)
                drop.done(_not_durable(error))
            self.resume()

        self._busy = True
        self._sync_thread.submit(lambda: self._catalog.remove_files(drop.shard_id), dropped)

    def _refuse_group(self, group: _Group, error: StorageError) -> None:
        for write, _ in group.writes:
            self._refuse(write, error)

    def _refuse(self, write: Write, error: StorageError) -> None:
        # What stays behind is named by no frame: recovery sweeps it up.
        with suppress(OSError):
            write.give_up()
        self._note_failure(error)
        self._metrics.count("refused_writes")
        write.outcome = _not_durable(error)

    def _note(self, error: StorageError | None) -> None:
        if error is not None:
            self._note_failure(error)
        elif self._metrics.health.is_degraded and self._catalog.failure is None:
            self._metrics.health.heal()
            _logger.warning("storage takes writes again")

    def _note_failure(self, error: StorageError) -> None:
        if self._metrics.health.report(str(error)):
            _logger.error("storage refuses writes: %s", error)


def _not_durable(error: StorageError) -> RequestError:
    return RequestError(NOT_DURABLE, str(error), {"reason": str(error)})
