"""The writer: everything that changes a shard goes through here, in one order.

It takes what is waiting as one batch: a note on the page that clients map; journal append; sync, if
someone in the batch asked for it; changes; answers. Nobody can see a change before it is in the
journal, nor out of it, after a crash, while a page vouches for what was before. While a sync is
under way the next batch gathers: under load one sync serves many writes.

It is a state machine that the loop drives (`turn`), not a task of its own: a write without a sync
is appended, applied and answered in the turn in which it came, two task switches (20 us)
sooner. Only a sync leaves the loop, and its end comes back to it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from autoloadd_protocol.errors import BAD_REQUEST, BUSY, NOT_DURABLE, SHUTTING_DOWN, RequestError

from .descriptors import journals_allowed
from .errors import DescriptorsError, StorageError
from .gathering import Gathering
from .groups import Group
from .leases import Leases
from .writes import Drop, Flush

if TYPE_CHECKING:
    from collections.abc import Callable

    from .builder import Builder
    from .catalog import Catalog
    from .metrics import Metrics
    from .shard import Shard
    from .storage.syncing import SyncThread
    from .writes import Write

_logger = logging.getLogger(__name__)

MAX_WAITING = 4096
"""Writes that may wait. Beyond it connections are not read: back-pressure, not memory."""

MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Bytes of entries that may wait, for instance while a disk stalls."""

_BATCH_WRITES = 1024
_BATCH_BYTES = 4 * 1024 * 1024
"""The bounds on memory and disk are looked at between batches."""
_BATCH_SHARDS = 16
"""Each may need a descriptor for a new journal."""


class Writer:
    """Takes writes by `submit`, carries them out in `turn`."""

    def __init__(
        self, catalog: Catalog, builder: Builder, sync_thread: SyncThread, metrics: Metrics
    ) -> None:
        self.on_progress: Callable[[], None] = lambda: None
        self.leases = Leases()
        """Whatever is stored ends the lease on its name."""
        self._catalog = catalog
        self._builder = builder
        self._sync_thread = sync_thread
        self._metrics = metrics
        self._waiting: deque[Write | Drop] = deque()
        self._waiting_bytes = 0
        self._busy = False
        self._waiting_syncs = 0
        self._gathering = Gathering()
        self.may_gather = False
        """Whether `turn` is called again at once while it `is_gathering`."""
        self.is_gathering = False
        self._closed = False
        self.not_before_ns = 0
        """Nothing is carried out before (CLOCK_MONOTONIC), no drop either."""
        self._journals_allowed = journals_allowed()
        self._closing_journals = 0

    @property
    def is_full(self) -> bool:
        """Tell whether connections should hold their writes back for now."""
        return len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES

    @property
    def is_idle(self) -> bool:
        """Tell whether everything that was submitted is answered."""
        return not self._waiting and not self._busy

    @property
    def is_busy(self) -> bool:
        """Tell whether the disk is waited for."""
        return self._busy

    def submit(self, write: Write | Drop) -> None:
        """Queue a write; its `done` is called in this turn or a later one."""
        if self._closed and self.is_idle:
            write.done(RequestError(SHUTTING_DOWN, "the daemon is stopping: connect again later"))
        else:
            self._waiting.append(write)
            self._waiting_bytes += write.stored_bytes
            if write.sync == "fsync":
                self._waiting_syncs += 1

    def evict(self, shard_id: str, done: Callable[[object | RequestError], None]) -> None:
        """Drop a shard to make room: before everything that waits, which may wait for the room."""
        self._waiting.appendleft(Drop(shard_id, done))

    def close(self) -> None:
        """Refuse writes that come from now on; those that are waiting are carried out."""
        self._closed = True

    def turn(self) -> None:
        """Carry out what is waiting, as far as it goes without waiting for the disk."""
        self._carry_out()
        if not self._busy:
            self._look_between_batches()
            if self._waiting:
                # To make room it may have asked for a shard to be dropped.
                self._carry_out()

    @property
    def _must_wait(self) -> bool:
        if self._builder.must_be_waited_for:
            return True
        is_short = len(self._catalog.open_journals) > 2 * self._journals_allowed - _BATCH_SHARDS
        return is_short and self._closing_journals > 0

    def _carry_out(self) -> None:
        self.is_gathering = False
        if self._catalog.is_loading:
            return
        if self.not_before_ns and time.monotonic_ns() < self.not_before_ns:
            return
        while self._waiting and not self._busy:
            first = self._waiting[0]
            if isinstance(first, Drop):
                if self._builder.is_building(first.shard_id):
                    return
                self._waiting.popleft()
                self._drop(first)
            elif self._must_wait:
                # To make room it may have asked for a shard to be dropped, which goes first.
                if self._waiting[0] is first:
                    return
            elif self._must_gather():
                self.is_gathering = True
                return
            else:
                self._begin(self._next_batch())
                if self._waiting and not self._busy:
                    self._look_between_batches()

    def _must_gather(self) -> bool:
        waiting = self._waiting_syncs
        return self.may_gather and waiting > 0 and self._gathering.is_worth_it(waiting)

    def _look_between_batches(self) -> None:
        """Do what may only be done where a batch ended."""
        if len(self._catalog.open_journals) > self._journals_allowed:
            self._close_spare_journals()
        self._builder.consider()

    def resume(self) -> None:
        """Go on after something that was waited for, and let connections see their answers."""
        self.turn()
        self.on_progress()

    def sync_in_background(self) -> None:
        """Bring what was written to stable storage soon: a power loss takes this long at most."""
        if self._catalog.is_loading:
            return
        for _, files in self._catalog:
            if files.wants_sync:
                self._sync_thread.submit(files.sync, self._note_synced)

    def note_failure(self, error: StorageError) -> RequestError:
        """Put a refusal of the files in the books; return what the client is told."""
        if isinstance(error, DescriptorsError):
            return RequestError(BUSY, f"{error}; try again later")
        if self._metrics.health.report(error):
            _logger.error("storage refuses writes: %s", error)
        return RequestError(NOT_DURABLE, str(error), {"reason": str(error)})

    def _close_spare_journals(self) -> None:
        """End journals that were not written for long where too many hold a descriptor.

        A shard that is written again gets a new one: hundreds of producers must not use up what
        the process may open.
        """
        spare = len(self._catalog.open_journals) - self._closing_journals - self._journals_allowed
        if spare <= 0:
            return
        for files in self._catalog.with_open_journals()[: spare + self._journals_allowed // 4]:
            files.rotate()
            self._closing_journals += 1
            self._sync_thread.submit(files.sync, self._note_closed)

    def _note_closed(self, error: StorageError | None) -> None:
        self._closing_journals -= 1
        self._note_synced(error)
        self.resume()

    def _next_batch(self) -> list[Write]:
        batch: list[Write] = []
        size = 0
        shards: set[str] = set()
        while self._waiting and len(batch) < _BATCH_WRITES and size < _BATCH_BYTES:
            write = self._waiting[0]
            if isinstance(write, Drop):
                break
            shards.add(write.producer.shard_id())
            if len(shards) > _BATCH_SHARDS:
                break
            batch.append(write)
            self._waiting.popleft()
            if write.sync == "fsync":
                self._waiting_syncs -= 1
            size += write.stored_bytes
            self._waiting_bytes -= write.stored_bytes
        return batch

    def _begin(self, batch: list[Write]) -> None:
        groups: dict[str, Group] = {}
        wants_sync = False
        for write in batch:
            if write.sync == "fsync":
                wants_sync = True
            shard_id = write.producer.shard_id()
            if write.needs_shard and self._catalog.find(shard_id) is None:
                write.outcome = 0
                continue
            try:
                self._admit(write)
            except StorageError as exc:
                self._refuse(write, exc)
                continue
            group = groups.get(shard_id)
            if group is None:
                group = groups[shard_id] = Group(*self._catalog.open(write.producer))
                group.shard.last_used_ns = time.monotonic_ns()
            group.add(write)
        appended = [group for group in groups.values() if self._append(group)]
        if wants_sync:
            self._sync(batch, appended)
        else:
            self._finish(batch, appended)

    def _admit(self, write: Write) -> None:
        """Do what comes before a write's frames. Raises StorageError: it alone is refused."""
        if write.changes:
            self._builder.check_room()
        if write.sync == "fsync":
            self._check_syncs()
        write.prepare()

    def _check_syncs(self) -> None:
        """Raise StorageError while any journal is not healed: what "synced" means is in doubt."""
        if self._metrics.health.is_degraded and (failure := self._catalog.failure) is not None:
            raise StorageError(failure)

    def _append(self, group: Group) -> bool:
        files = group.files
        group.end_before = files.end
        frames: list[bytes | memoryview] = []
        for write, generation in group.writes:
            frames += write.frames(generation, files.synced)
        if not frames:
            return True
        try:
            self._catalog.check_in_place()
            group.shard.begin_changes(group.announce)
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

    def _sync(self, batch: list[Write], groups: list[Group]) -> None:
        """Sync in the thread, then finish; until then nothing else is begun."""
        failures: dict[Shard, StorageError] = {}
        flushes = [write for write in batch if isinstance(write, Flush)]
        # A flush is for all shards: its connection may have written to any of them before.
        wanted = [
            (shard, files)
            for shard, files in (self._catalog if flushes else ())
            if files.has_unsynced or files.failure is not None
        ] or [(group.shard, group.files) for group in groups if group.wants_sync]

        ends = {group.shard: group.end_before for group in groups}

        def sync_all() -> None:
            for shard, files in wanted:
                try:
                    files.sync(makes_room=True)
                except StorageError as exc:
                    failures[shard] = exc
                    if shard in ends:
                        # Here: a background sync that waits behind this must not take it in.
                        files.cut_back(ends[shard])

        def synced(error: StorageError | None) -> None:
            self._busy = False
            self._metrics.count("syncs")
            self._gathering.note_sync(synced=syncs, waiting=self._waiting_syncs, began_ns=began_ns)
            if error is not None:
                # It ended the job: nobody knows what of the rest was synced.
                for shard, files in wanted:
                    files.fail(str(error))
                    failures.setdefault(shard, error)
            for group in groups:
                if group.shard in failures:
                    self._refuse_group(group, failures[group.shard])
            good = [group for group in groups if group.shard not in failures]
            self._finish(batch, good, next(iter(failures.values()), None))
            self.resume()

        self._busy = True
        syncs = sum([write.sync == "fsync" for write in batch])
        began_ns = time.monotonic_ns()
        self._sync_thread.submit(sync_all, synced)

    def _finish(
        self, batch: list[Write], groups: list[Group], failure: StorageError | None = None
    ) -> None:
        """Make the changes, then answer everyone in the order in which they came.

        With a `failure` of any shard's sync no flush has done what it is for.
        """
        for group in groups:
            group.apply()
        if self.leases.held:
            self._end_leases(groups)
        for write in batch:
            if failure is not None and isinstance(write, Flush):
                self._refuse(write, failure)
            write.done(write.outcome)
        # Behind the answers: a client writes its next request meanwhile.
        for group in groups:
            self._metrics.count("writes", len(group.writes))
            self._builder.look_at(group.shard, group.grown_bytes)
            if group.changes:
                self._note_success()

    def _end_leases(self, groups: list[Group]) -> None:
        now = time.monotonic_ns()
        for group in groups:
            for write, _ in group.writes:
                self.leases.note_stored(group.shard.id, write.stored_names, now)

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
                drop.done(self.note_failure(error))
            self.resume()

        self._busy = True
        self._sync_thread.submit(lambda: self._catalog.remove_files(drop.shard_id), dropped)

    def _refuse_group(self, group: Group, error: StorageError) -> None:
        group.shard.end_changes()
        for write, _ in group.writes:
            self._refuse(write, error)
        if not self._builder.is_building(group.shard.id):
            self._catalog.forget_unwritten(group.shard)

    def _refuse(self, write: Write, error: StorageError) -> None:
        if self.leases.held:
            self.leases.note_refused(write.producer.shard_id(), write.stored_names)
        # What stays behind is named by no frame: recovery sweeps it up.
        with suppress(OSError):
            write.give_up()
        self._metrics.count("refused_writes")
        write.outcome = self.note_failure(error)

    def _note_synced(self, error: StorageError | None) -> None:
        # One that worked proves little: a full disk syncs what it has.
        if error is not None:
            self.note_failure(error)

    def _note_success(self) -> None:
        if self._metrics.health.is_degraded and self._catalog.failure is None:
            self._metrics.health.heal()
            _logger.warning("storage takes writes again")
