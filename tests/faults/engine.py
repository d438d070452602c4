"""The daemon's storage with its real writer, builder and threads, without sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from autoloadd_daemon.builder import Builder
from autoloadd_daemon.catalog import Catalog
from autoloadd_daemon.metrics import Metrics
from autoloadd_daemon.storage.syncing import SyncThread
from autoloadd_daemon.writer import Drop, Writer
from autoloadd_daemon.writes import Clear, CommitBulk, Delete, Flush, Put
from autoloadd_protocol.errors import RequestError
from autoloadd_protocol.producer import Producer
from autoloadd_protocol.record import encode_record

from ..records import is_intact
from .disk_model import Acknowledged, Submitted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from autoloadd_daemon.shard import Shard
    from autoloadd_daemon.storage.files import Files
    from autoloadd_daemon.writes import Write

    from .recording import RecordingFiles

PRODUCER = Producer("zsh", "5.9")
MAX_BYTES = 64 * 1024 * 1024

Contents = dict[str, bytes]
Change = "Callable[[Contents], Contents]"


@dataclass
class Engine:
    """Submits writes to the real writer, and keeps what the shard must look like after each.

    `states[n]` is what the shard holds after the first n writes, of which write number n is the
    last. A refused write changes nothing, but may still show after a crash.
    """

    files: RecordingFiles
    catalog: Catalog
    writer: Writer
    builder: Builder
    metrics: Metrics
    states: list[Contents] = field(default_factory=lambda: [{}])

    async def put(self, entries: Mapping[str, bytes], sync: str = "write") -> bool:
        """Store entries; tell whether it was acknowledged."""
        records = [
            (name.encode(), encode_record(name.encode(), blob, None, 7, 9))
            for name, blob in entries.items()
        ]
        return await self._carry_out(
            lambda done: Put(PRODUCER, sync, done, records), {**self.states[-1], **entries}, sync
        )

    async def delete(self, *names: str, sync: str = "write") -> bool:
        """Remove entries."""
        left = {name: blob for name, blob in self.states[-1].items() if name not in names}
        encoded = [name.encode() for name in names]
        return await self._carry_out(lambda done: Delete(PRODUCER, sync, done, encoded), left, sync)

    async def clear(self, sync: str = "write") -> bool:
        """Remove everything."""
        return await self._carry_out(lambda done: Clear(PRODUCER, sync, done), {}, sync)

    async def bulk(self, mode: str, entries: Mapping[str, bytes], sync: str = "write") -> bool:
        """Store entries as a staged bulk."""
        _, shard_files = self.catalog.open(PRODUCER)
        staged = shard_files.stage(mode, None)
        for name, blob in entries.items():
            staged.add([(name.encode(), encode_record(name.encode(), blob, None, 7, 9))])
        before = self.states[-1] if mode == "merge" else {}
        return await self._carry_out(
            lambda done: CommitBulk(PRODUCER, sync, done, staged), {**before, **entries}, sync
        )

    async def flush(self) -> bool:
        """Bring everything to stable storage."""
        return await self._carry_out(
            lambda done: Flush(PRODUCER, "fsync", done), self.states[-1], "fsync"
        )

    async def drop(self) -> bool:
        """Remove the whole shard."""
        shard_id = PRODUCER.shard_id()
        return await self._carry_out(lambda done: Drop(shard_id, done), {}, "fsync")

    def contents(self) -> Contents:
        """Return what the shard shows now."""
        shard = self.catalog.find(PRODUCER.shard_id())
        return {} if shard is None else contents_of(shard)

    def begin_build(self) -> None:
        """Have an image built, whether one is due or not, while more is written."""
        shard, _ = self.catalog.open(PRODUCER)
        self.builder._failed[shard] = None
        self.builder.look_at(shard)
        self.writer.turn()

    async def finish_build(self) -> None:
        """Wait for the build, and for the removal of what it covers."""
        await self.builder.wait_until_idle()

    async def _carry_out(
        self,
        make: Callable[[Callable[[object], None]], Write | Drop],
        after: Contents,
        sync: str,
    ) -> bool:
        answered = trio.Event()
        outcomes: list[object] = []

        def done(outcome: object) -> None:
            outcomes.append(outcome)
            answered.set()

        self.states.append(after)
        number = len(self.states) - 1
        self.files.note(Submitted(number))
        self.writer.submit(make(done))
        self.writer.resume()
        await answered.wait()
        refused = isinstance(outcomes[0], RequestError)
        self.files.note(Acknowledged(number, None if refused else sync))
        if refused:
            # Not visible now. It counts as unanswered: a crash may still bring it back.
            self.states.append(self.states[number - 1])
            self.files.note(Submitted(number + 1))
            self.files.note(Acknowledged(number + 1, None))
        return not refused


@asynccontextmanager
async def running_engine(files: RecordingFiles, cache_dir: str) -> AsyncIterator[Engine]:
    """Run an engine on a directory until the block ends."""
    metrics = Metrics()
    catalog = Catalog(files, cache_dir, metrics, max_bytes=MAX_BYTES)
    catalog.recover()
    token = trio.lowlevel.current_trio_token()
    thread = SyncThread(token.run_sync_soon)
    builder = Builder(catalog, files, thread, metrics)
    writer = Writer(catalog, builder, thread, metrics)
    builder.on_built = writer.resume
    async with trio.open_nursery() as nursery:
        builder.nursery = nursery
        yield Engine(files, catalog, writer, builder, metrics)
    await trio.to_thread.run_sync(thread.stop, 5.0)


def read_back(files: Files, cache_dir: str) -> Contents:
    """Return what a new start finds in the shard. Raises DaemonError."""
    catalog = Catalog(files, cache_dir, Metrics(), max_bytes=MAX_BYTES)
    catalog.recover()
    found: Contents = {}
    for shard, shard_files in catalog:
        found = contents_of(shard)
        shard_files.close()
    return found


def contents_of(shard: Shard) -> Contents:
    """Return every entry of a shard; each must be intact."""
    contents: Contents = {}
    for name, record in shard.list_names(b"", b"", 1_000_000):
        assert is_intact(record), name
        contents[name.decode()] = bytes(record.buffer[record.blob_start : record.blob_end])
    return contents
