"""One shard driven as the writer drives it, without a process; and disks that watch or fail."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from autoloadd_daemon.errors import DamageError, StorageError
from autoloadd_daemon.loading import load_images
from autoloadd_daemon.shard import Shard
from autoloadd_daemon.storage.files import Files
from autoloadd_daemon.storage.images import build_image
from autoloadd_daemon.storage.recovery import Recovered, recover_shard
from autoloadd_daemon.storage.shard_files import ShardFiles
from autoloadd_daemon.writes import Clear, CommitBulk, Delete, Put, Write
from autoloadd_protocol.producer import Producer
from autoloadd_protocol.record import Record, encode_record, fingerprint_of

from ..records import is_intact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from autoloadd_daemon.catalog import Catalog
    from autoloadd_daemon.storage.images import SealedImage
    from autoloadd_daemon.storage.set_aside import SetAside

PRODUCER = Producer("zsh", "5.9", 8)
EPOCH = 0x1122334455667788


class Item(NamedTuple):
    """What a test stores under a name."""

    blob: bytes
    fingerprint: bytes | None = None
    mtime: int = 0


Contents = dict[bytes, Item]


def record_of(name: bytes, item: Item) -> Record:
    """Return an item as the record that a put makes of it."""
    return encode_record(name, item.blob, item.fingerprint, item.mtime, 1)


def records_of(items: Mapping[bytes, Item]) -> list[tuple[bytes, Record]]:
    """Return (name, record) of all items."""
    return [(name, record_of(name, item)) for name, item in items.items()]


def item_of(record: Record) -> Item:
    """Return what a record holds."""
    blob = bytes(record.buffer[record.blob_start : record.blob_end])
    return Item(blob, fingerprint_of(record), record.binary_mtime_ns)


def contents_of(shard: Shard) -> Contents:
    """Return everything that a shard serves; checks that both ways of asking agree."""
    listed = shard.list_names(b"", b"", 1_000_000)
    contents = {name: item_of(record) for name, record in listed}
    for name, item in contents.items():
        found = shard.look_up(name)
        assert found is not None
        assert item_of(found) == item
        assert is_intact(found)
    assert shard.entries == len(contents)
    assert shard.blob_bytes == sum(len(item.blob) for item in contents.values())
    return contents


def load_all(catalog: Catalog) -> None:
    """Bring the images into memory that a start left in their files, here and now, as App does."""

    async def run(job: Callable[[], SealedImage]) -> SealedImage:
        return job()

    try:
        # Nothing in it waits, so one step is all of it.
        load_images(catalog, run).send(None)
    except StopIteration:
        return
    except DamageError:
        catalog.recover_again()


class QuickFiles(Files):
    """The real disk without waiting for it: for tests that only end the process."""

    def sync_data(self, descriptor: int) -> None:
        """Skip the wait."""
        os.fstat(descriptor)

    sync = sync_data

    def sync_directory(self, path: str) -> None:
        """Skip the wait."""
        os.stat(path)


class RecordingFiles(QuickFiles):
    """Logs every change as (operation, file name); can fail or write short at the n-th change.

    `fail_at` counts from 1; `persistent` lets every later change fail too; `fail_next` names the
    operation that fails once. A failing append leaves half of its bytes, as a full disk does.
    """

    def __init__(
        self, *, fail_at: int = 0, persistent: bool = False, error: int = errno.EIO
    ) -> None:
        self.log: list[tuple[str, str]] = []
        self.failed: list[tuple[str, str]] = []
        self.fail_next = ""
        self.fail_at = fail_at
        self.persistent = persistent
        self._error = error
        self._calls = 0
        self._names: dict[int, str] = {}

    def operations(self, *, on: str = "") -> list[str]:
        """Return what was done, as `operation file`, to the files whose names hold `on`."""
        return [f"{operation} {name}" for operation, name in self.log if on in name]

    def _step(self, operation: str, name: str) -> None:
        self._calls += 1
        late = self.persistent and self._calls > self.fail_at
        chosen = operation == self.fail_next
        if chosen:
            self.fail_next = ""
        if chosen or (self.fail_at and (self._calls == self.fail_at or late)):
            self.failed.append((operation, name))
            raise OSError(self._error, os.strerror(self._error))
        self.log.append((operation, name))

    def _opened(self, descriptor: int, path: str) -> int:
        self._names[descriptor] = Path(path).name
        return descriptor

    def create(self, path: str) -> int:
        """Create, unless it is this call's turn to fail."""
        self._step("create", Path(path).name)
        return self._opened(super().create(path), path)

    def create_for_image(self, path: str) -> int:
        """Create, unless it is this call's turn to fail."""
        self._step("create", Path(path).name)
        return self._opened(super().create_for_image(path), path)

    def reopen(self, path: str) -> int:
        """Open, unless it is this call's turn to fail."""
        self._step("reopen", Path(path).name)
        return self._opened(super().reopen(path), path)

    def append(self, descriptor: int, parts: Iterable[bytes | memoryview]) -> None:
        """Write; a call that fails leaves half of the bytes behind."""
        data = b"".join(parts)
        try:
            self._step("append", self._names[descriptor])
        except OSError:
            os.write(descriptor, data[: len(data) // 2])
            raise
        super().append(descriptor, [data])

    def overwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write, unless it is this call's turn to fail."""
        self._step("overwrite", self._names[descriptor])
        super().overwrite(descriptor, data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut, unless it is this call's turn to fail."""
        self._step("truncate", self._names[descriptor])
        super().truncate(descriptor, size)

    def sync_data(self, descriptor: int) -> None:
        """Sync, unless it is this call's turn to fail."""
        self._step("sync", self._names[descriptor])

    sync = sync_data

    def sync_directory(self, path: str) -> None:
        """Sync, unless it is this call's turn to fail."""
        self._step("sync_directory", Path(path).name)

    def rename(self, source: str, target: str) -> None:
        """Rename, unless it is this call's turn to fail."""
        self._step("rename", f"{Path(source).name} {Path(target).name}")
        super().rename(source, target)
        for descriptor, name in self._names.items():
            if name == Path(source).name:
                self._names[descriptor] = Path(target).name

    def remove(self, path: str) -> None:
        """Remove, unless it is this call's turn to fail."""
        self._step("remove", Path(path).name)
        super().remove(path)

    def make_directory(self, path: str) -> None:
        """Make it, unless it is this call's turn to fail."""
        self._step("make_directory", Path(path).name)
        super().make_directory(path)


class Life:
    """One life of the daemon, for one shard: recovers at its begin, and ends as kill -9 does.

    Those that a test leaves alive are ended with the `cache_dir` that they lie in.
    """

    alive: ClassVar[list[Life]] = []

    def __init__(self, directory: Path, files: Files | None = None) -> None:
        self.directory = directory
        self.files = files or QuickFiles()
        self.set_aside: list[SetAside] = []
        self.torn_bytes = 0
        self.shard = Shard(PRODUCER, epoch=EPOCH, built_at_ns=5)
        self.recovered: Recovered | None = None
        found = recover_shard(self.files, str(directory))
        if isinstance(found, Recovered):
            self.recovered = found
            self.set_aside, self.torn_bytes = found.set_aside, found.torn_bytes
            self.shard = Shard(found.producer, epoch=found.epoch, built_at_ns=found.built_at_ns)
            self.shard.take_over(found)
        else:
            self.set_aside = found
        self.disk = ShardFiles(self.files, str(directory), self.shard.producer, self.shard.epoch)
        if self.recovered is not None:
            self.disk.take_over(self.recovered)
        self.alive.append(self)

    @property
    def contents(self) -> Contents:
        """What the shard serves."""
        return contents_of(self.shard)

    def put(self, items: Mapping[bytes, Item], *, sync: bool = False) -> None:
        """Store items in one frame. Raises StorageError."""
        self._write(Put(PRODUCER, "write", _no_one, records_of(items)), sync=sync)

    def delete(self, names: Sequence[bytes], *, sync: bool = False) -> None:
        """Remove names. Raises StorageError."""
        self._write(Delete(PRODUCER, "write", _no_one, names), sync=sync)

    def clear(self, *, sync: bool = False) -> None:
        """Remove everything. Raises StorageError."""
        self._write(Clear(PRODUCER, "write", _no_one), sync=sync)

    def bulk(
        self,
        mode: str,
        parts: Sequence[Mapping[bytes, Item]],
        *,
        built_at_ns: int | None = None,
        sync: bool = False,
    ) -> None:
        """Stage each part, then commit. Raises StorageError."""
        staged = self.disk.stage(mode, built_at_ns)
        for part in parts:
            staged.add(records_of(part))
        self._write(CommitBulk(PRODUCER, "write", _no_one, staged), sync=sync)

    def build(self, keep_bytes: int | None = None) -> None:
        """Build an image and remove what it covers. Raises StorageError."""
        covered = self.disk.rotate()
        snapshot = self.shard.begin_build(keep_bytes)
        try:
            image, evicted = build_image(self.files, str(self.directory), snapshot)
        except StorageError:
            self.shard.abandon_build()
            raise
        self.shard.finish_build(image, evicted)
        self.disk.forget(covered)
        for journal in covered:
            journal.close()
            journal.remove()

    def sync(self) -> None:
        """Bring everything to stable storage. Raises StorageError."""
        self.disk.sync()

    def crash(self) -> None:
        """End without a word; only the descriptors are given back."""
        self.disk.close()
        if self in self.alive:
            self.alive.remove(self)

    def _write(self, write: Write, *, sync: bool) -> None:
        """Do what `Writer` does with a batch of one write."""
        shard, disk = self.shard, self.disk
        try:
            write.prepare()
        except StorageError:
            write.give_up()
            raise
        shard.generation += 1
        end = disk.end
        try:
            disk.append(
                write.frames(shard.generation, disk.synced),
                last_generation=shard.generation,
                built_at_ns=shard.built_at_ns,
                bulks=[] if write.bulk is None else [write.bulk],
            )
            if sync:
                self._sync_or_cut_back(end)
        except StorageError:
            write.give_up()
            raise
        write.apply(shard, shard.generation)

    def _sync_or_cut_back(self, end: int) -> None:
        try:
            self.disk.sync()
        except StorageError:
            self.disk.cut_back(end)
            raise


def _no_one(_outcome: object) -> None:
    """Nobody waits for this write."""


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let nothing be opened; what is open stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Clock:
    """CLOCK_MONOTONIC as the tests set it, in ns."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000

    def __call__(self) -> int:
        return self.now_ns


def files_in(directory: Path) -> dict[str, bytes]:
    """Return every file's bytes by name."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def write_files(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Make a directory hold exactly these files."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        if path.name not in contents:
            path.unlink()
    for name, data in contents.items():
        (directory / name).write_bytes(data)
