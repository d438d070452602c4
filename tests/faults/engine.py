"""The daemon's storage with its real writer, builder and threads, without sockets."""

from __future__ import annotations

from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from autoloadd_daemon.builder import Builder
from autoloadd_daemon.catalog import Catalog
from autoloadd_daemon.errors import StorageError
from autoloadd_daemon.metrics import Metrics
from autoloadd_daemon.writer import Writer
from autoloadd_daemon.writes import Clear, CommitBulk, Delete, Drop, Flush, Put
from autoloadd_protocol.errors import BAD_REQUEST, RequestError
from autoloadd_protocol.producer import Producer
from autoloadd_protocol.record import encode_record

from ..records import is_intact
from .disk_model import Acknowledged, Submitted
from .turnstile import ORDERS, Turnstile, TurnSyncThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from autoloadd_daemon.shard import Shard
    from autoloadd_daemon.storage.files import Files
    from autoloadd_daemon.writes import Write
    from autoloadd_protocol.record import Record

    from .recording import RecordingFiles
    from .turnstile import Schedule

PRODUCER = Producer("zsh", "5.9")
OTHER = Producer("fish", "4.1")
MAX_BYTES = 64 * 1024 * 1024

Contents = dict[str, bytes]
Histories = dict[str, list[Contents]]
"""Of each shard: `[n]` is what it holds after its first n writes, of which number n is the last."""


def new_histories() -> Histories:
    """Return histories of shards that hold nothing yet."""
    return defaultdict(lambda: [{}])


@dataclass
class _Asked:
    """A write before it is submitted: how to make it, and what the shard holds after it."""

    shard: str
    sync: str
    make: Callable[[Callable[[object], None]], Write | Drop]
    after: Callable[[Contents], Contents]
    number: int = 0
    outcome: object = None
    answered: trio.Event = field(default_factory=trio.Event)

    def done(self, outcome: object) -> None:
        """Take the answer."""
        self.outcome = outcome
        self.answered.set()


@dataclass
class Engine:
    """Submits writes to the real writer, and keeps what each shard must look like after them.

    A refused write changes nothing, but may still show after a crash.
    """

    files: RecordingFiles
    catalog: Catalog
    writer: Writer
    builder: Builder
    metrics: Metrics
    thread: TurnSyncThread
    histories: Histories

    def asked_to_put(
        self, entries: Mapping[str, bytes], sync: str = "write", producer: Producer = PRODUCER
    ) -> _Asked:
        """Return a put, for `carry_out`."""
        return _Asked(
            producer.shard_id(),
            sync,
            lambda done: Put(producer, sync, done, _records(entries)),
            lambda before: {**before, **entries},
        )

    async def put(self, entries: Mapping[str, bytes], sync: str = "write") -> bool:
        """Store entries; tell whether it was acknowledged."""
        return await self.carry_out(self.asked_to_put(entries, sync))

    async def delete(self, *names: str, sync: str = "write") -> bool:
        """Remove entries."""
        encoded = [name.encode() for name in names]
        return await self._one(
            sync,
            lambda done: Delete(PRODUCER, sync, done, encoded),
            lambda before: {name: blob for name, blob in before.items() if name not in names},
        )

    async def clear(self, sync: str = "write") -> bool:
        """Remove everything."""
        return await self._one(sync, lambda done: Clear(PRODUCER, sync, done), lambda _: {})

    async def bulk(self, mode: str, entries: Mapping[str, bytes], sync: str = "write") -> bool:
        """Store entries as a staged bulk."""
        _, shard_files = self.catalog.open(PRODUCER)
        try:
            staged = shard_files.stage(mode, None)
        except StorageError:
            return False
        try:
            for name, blob in entries.items():
                staged.add(_records({name: blob}))
        except StorageError:
            # As the connection's context does: what cannot be removed is swept up by recovery.
            _discard(staged.discard)
            return False
        return await self._one(
            sync,
            lambda done: CommitBulk(PRODUCER, sync, done, staged),
            lambda before: {**(before if mode == "merge" else {}), **entries},
        )

    async def flush(self) -> bool:
        """Bring everything to stable storage."""
        return await self._one("fsync", lambda done: Flush(PRODUCER, "fsync", done), dict)

    async def drop(self) -> bool:
        """Remove the whole shard. One that is not there is refused."""
        shard_id = PRODUCER.shard_id()
        return await self._one("fsync", lambda done: Drop(shard_id, done), lambda _: {})

    def contents(self) -> dict[str, Contents]:
        """Return what each shard shows now."""
        return {shard.id: contents_of(shard) for shard, _ in self.catalog}

    def check_contents(self) -> None:
        """Assert that the daemon shows just what it acknowledged."""
        contents = self.contents()
        for shard, states in self.histories.items():
            assert contents.get(shard, {}) == states[-1], f"{shard} shows something else"

    def begin_build(self) -> None:
        """Have an image built, whether one is due or not, while more is written."""
        shard = self.catalog.find(PRODUCER.shard_id())
        if shard is None or not self.catalog.files_of(shard).journal_bytes:
            return
        self.builder._failed[shard] = None
        self.builder._not_before_ns = 0
        self.builder.look_at(shard)
        self.writer.turn()

    async def finish_build(self) -> None:
        """Wait for the build, and for the removal of what it covers."""
        await self._receive()
        await self.builder.wait_until_idle()

    async def _receive(self) -> None:
        if self.files.turnstile is not None:
            await self.files.turnstile.receive()

    async def evict(self, max_bytes: int) -> None:
        """Have an image built that keeps the newest entries only."""
        states = self.histories[PRODUCER.shard_id()]
        states.append({})
        self.files.note(Submitted(PRODUCER.shard_id(), len(states) - 1))
        self.catalog.max_bytes = max_bytes
        shard, _ = self.catalog.open(PRODUCER)
        self.builder.look_at(shard)
        self.writer.turn()
        await self.finish_build()
        states[-1] = contents_of(shard)

    def sync_in_background(self) -> None:
        """Do what the daemon does once a second."""
        self.writer.sync_in_background()

    async def try_to_heal(self) -> None:
        """Do what the daemon does from time to time while it is degraded."""
        self.builder._not_before_ns = 0
        self.builder.heal()
        probed = trio.Event()

        def note(error: StorageError | None) -> None:
            if error is not None:
                self.metrics.health.report(str(error))
            elif self.catalog.failure is None:
                self.metrics.health.heal()
            probed.set()

        self.thread.submit(self.catalog.probe, note)
        await probed.wait()
        self.writer.resume()
        await self.finish_build()

    async def _one(
        self,
        sync: str,
        make: Callable[[Callable[[object], None]], Write | Drop],
        after: Callable[[Contents], Contents],
    ) -> bool:
        return await self.carry_out(_Asked(PRODUCER.shard_id(), sync, make, after))

    async def carry_out(self, *asked: _Asked) -> bool:
        """Submit writes as one batch; tell whether all were acknowledged.

        Where one may be refused, each is of another shard.
        """
        await self.submit(*asked)
        return await self.answer(*asked)

    async def submit(self, *asked: _Asked) -> None:
        """Give writes to the writer; `answer` must follow."""
        if self.files.turnstile is not None:
            await self.files.turnstile.step_of_loop()
        for each in asked:
            states = self.histories[each.shard]
            each.number = len(states)
            states.append(each.after(states[-1]))
            self.files.note(Submitted(each.shard, each.number))
        for each in asked:
            self.writer.submit(each.make(each.done))
        self.writer.resume()

    async def answer(self, *asked: _Asked) -> bool:
        """Wait for the answers; tell whether all were acknowledged."""
        for each in asked:
            await each.answered.wait()
        await self._receive()
        return not [each for each in asked if not self._note_answer(each)]

    def _note_answer(self, asked: _Asked) -> bool:
        outcome = asked.outcome
        if not isinstance(outcome, RequestError):
            self.files.note(Acknowledged(asked.shard, asked.number, asked.sync))
            return True
        # Not visible now. It counts as unanswered: a crash may still bring it back.
        self.files.note(Acknowledged(asked.shard, asked.number, None))
        states = self.histories[asked.shard]
        there_is_none = outcome.code == BAD_REQUEST
        states.append({} if there_is_none else states[asked.number - 1])
        self.files.note(Submitted(asked.shard, asked.number + 1))
        return False


@asynccontextmanager
async def running_engine(
    files: RecordingFiles,
    cache_dir: str,
    schedule: Schedule = ORDERS[0],
    histories: Histories | None = None,
) -> AsyncIterator[Engine]:
    """Run an engine on a directory until the block ends."""
    metrics = Metrics()
    catalog = Catalog(files, cache_dir, metrics, max_bytes=MAX_BYTES)
    catalog.recover()
    turnstile = files.turnstile = Turnstile(schedule)
    token = trio.lowlevel.current_trio_token()
    thread = TurnSyncThread(turnstile, token.run_sync_soon)
    builder = Builder(catalog, files, thread, metrics)
    writer = Writer(catalog, builder, thread, metrics)
    builder.on_built = writer.resume
    trio.lowlevel.add_instrument(turnstile)
    try:
        with turnstile.around_builds(builder):
            async with trio.open_nursery() as nursery:
                builder.nursery = nursery
                kept = new_histories() if histories is None else histories
                yield Engine(files, catalog, writer, builder, metrics, thread, kept)
        await trio.to_thread.run_sync(thread.stop, 60.0)
    finally:
        trio.lowlevel.remove_instrument(turnstile)
        files.turnstile = None
    files.close_all()


def read_back(files: Files, cache_dir: str) -> dict[str, Contents]:
    """Return what a new start finds in each shard. Raises DaemonError."""
    catalog = Catalog(files, cache_dir, Metrics(), max_bytes=MAX_BYTES)
    catalog.recover()
    found = {}
    for shard, shard_files in catalog:
        found[shard.id] = contents_of(shard)
        shard_files.close()
    return found


def contents_of(shard: Shard) -> Contents:
    """Return every entry of a shard; each must be intact."""
    contents: Contents = {}
    for name, record in shard.list_names(b"", b"", 1_000_000):
        assert is_intact(record), name
        contents[name.decode()] = bytes(record.buffer[record.blob_start : record.blob_end])
    return contents


def _records(entries: Mapping[str, bytes]) -> list[tuple[bytes, Record]]:
    return [
        (name.encode(), encode_record(name.encode(), blob, None, 7, 9))
        for name, blob in entries.items()
    ]


def _discard(discard: Callable[[], None]) -> None:
    try:
        discard()
    except OSError:
        return
