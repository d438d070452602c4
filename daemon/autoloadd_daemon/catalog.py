"""All shards of the daemon, by id, and the bound on what they take together."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from .errors import StartError, StorageError
from .shard import Shard
from .storage.bulks import BulkNumbers
from .storage.recovery import Recovered, recover_shard
from .storage.set_aside import SetAside, find_set_aside, remove_excess
from .storage.shard_files import ShardFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from autoloadd_protocol.producer import Producer

    from .metrics import Metrics
    from .storage.files import Files

_logger = logging.getLogger(__name__)

DROPPED = ".dropped-"
PROBE = ".probe"
_SET_ASIDE_FRACTION = 10
_PROBE_BYTES = 65_536


class Catalog:
    """The shards that there are. `max_bytes` bounds them and the staged bulks together.

    `lost` says why nothing may be written any more: the directory at the path is not the one that
    this daemon has locked, so it may be another daemon's.
    """

    def __init__(self, files: Files, cache_dir: str, metrics: Metrics, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.staged_bytes = 0
        self.lost: str | None = None
        self.open_bulks: dict[int, str] = {}
        """Bulks that are being staged: their tokens, and the ids of their shards."""
        self.on_forget: Callable[[Shard], None] = lambda _shard: None
        self.cache_dir = cache_dir
        self._files = files
        self._metrics = metrics
        self._shards: dict[str, tuple[Shard, ShardFiles]] = {}
        self._numbers = BulkNumbers()
        self._drops = 0

    def recover(self) -> None:
        """Load every shard that the cache directory holds. Raises StartError."""
        try:
            self._files.remove(f"{self.cache_dir}/{PROBE}")
            for name in self._files.names(self.cache_dir):
                path = f"{self.cache_dir}/{name}"
                if name.startswith(DROPPED):
                    self._files.remove_tree(path)
                elif os.path.isdir(path):
                    self._recover_shard(name, path)
            self._limit_set_aside()
        except (OSError, StorageError) as exc:
            raise StartError(f"cannot recover {self.cache_dir}: {exc}") from exc

    def _limit_set_aside(self) -> None:
        """Report what lies aside from earlier starts too, and let go what is too much of it."""
        names = self._files.names(self.cache_dir)
        directories = [path for name in names if os.path.isdir(path := f"{self.cache_dir}/{name}")]
        kept = find_set_aside(self._files, directories)
        for path in remove_excess(self._files, kept, self.max_bytes // _SET_ASIDE_FRACTION):
            _logger.warning("removed %s: more recent files are set aside", path)
            kept.remove(path)
        new = {aside.file: aside for aside in self._metrics.set_aside}
        self._metrics.set_aside.clear()
        earlier = "set aside at an earlier start"
        self._metrics.set_aside.extend(new.get(path, SetAside(path, earlier)) for path in kept)

    def _recover_shard(self, name: str, path: str) -> None:
        recovered = recover_shard(self._files, path)
        if not isinstance(recovered, Recovered):
            self._metrics.set_aside.extend(recovered)
            return
        if recovered.producer.shard_id() != name:
            raise StartError(f"{path} holds the shard of {recovered.producer}: move it away")
        self._metrics.set_aside.extend(recovered.set_aside)
        self._metrics.count("torn_bytes", recovered.torn_bytes)
        shard = Shard(recovered.producer, epoch=recovered.epoch, built_at_ns=recovered.built_at_ns)
        shard.take_over(recovered)
        shard_files = ShardFiles(self._files, path, shard.producer, shard.epoch, self._numbers)
        shard_files.take_over(recovered)
        self._shards[shard.id] = (shard, shard_files)

    def find(self, shard_id: str) -> Shard | None:
        """Return a shard, or None where there is none."""
        found = self._shards.get(shard_id)
        return None if found is None else found[0]

    def files_of(self, shard: Shard) -> ShardFiles:
        """Return the files of a shard that is in the catalog."""
        return self._shards[shard.id][1]

    def open(self, producer: Producer) -> tuple[Shard, ShardFiles]:
        """Return the shard of a producer and its files; make it if this is its first write."""
        shard_id = producer.shard_id()
        if shard_id not in self._shards:
            epoch = int.from_bytes(os.urandom(8), "big") | 1  # never 0, which means: no shard yet
            shard = Shard(producer, epoch=epoch, built_at_ns=time.time_ns())
            directory = f"{self.cache_dir}/{shard_id}"
            self._shards[shard_id] = (
                shard,
                ShardFiles(self._files, directory, producer, shard.epoch, self._numbers),
            )
        return self._shards[shard_id]

    def remove_files(self, shard_id: str) -> None:
        """Remove a shard's files. Raises StorageError; then they are still there.

        The rename makes it one step: a crash leaves all of the shard or nothing. Runs in the sync
        thread, which alone uses the descriptors of journals apart from appends.
        """
        self.check_in_place()
        _, shard_files = self._shards[shard_id]
        self._drops += 1
        dropped = f"{self.cache_dir}/{DROPPED}{os.getpid()}-{self._drops}"
        try:
            if os.path.isdir(shard_files.directory):
                self._files.rename(shard_files.directory, dropped)
        except OSError as exc:
            raise StorageError(f"{shard_files.directory}: {exc.strerror}") from exc
        shard_files.close()
        try:
            self._files.sync_directory(self.cache_dir)
            self._files.remove_tree(dropped)
        except OSError as exc:
            # The shard is gone already; what is left of it goes at the next start.
            _logger.warning("%s could not be removed: %s", dropped, exc)

    def forget(self, shard_id: str) -> None:
        """Take out a shard whose files are removed, set-aside ones among them."""
        shard, shard_files = self._shards.pop(shard_id)
        self.on_forget(shard)
        directory = shard_files.directory
        kept = [a for a in self._metrics.set_aside if os.path.dirname(a.file) != directory]
        self._metrics.set_aside.clear()
        self._metrics.set_aside.extend(kept)

    def check_in_place(self) -> None:
        """Return if the cache directory is still ours. Raises StorageError otherwise."""
        if self.lost is not None:
            raise StorageError(self.lost)

    def probe(self) -> None:
        """Try whether the disk takes a small file. Raises StorageError."""
        self.check_in_place()
        path = f"{self.cache_dir}/{PROBE}"
        try:
            self._files.remove(path)
            descriptor = self._files.create(path)
            try:
                self._files.append(descriptor, [bytes(_PROBE_BYTES)])
                self._files.sync(descriptor)
            finally:
                self._files.close(descriptor)
                self._files.remove(path)
        except OSError as exc:
            raise StorageError(f"{path}: {exc.strerror}") from exc

    def __iter__(self) -> Iterator[tuple[Shard, ShardFiles]]:
        return iter(list(self._shards.values()))

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def stored_bytes(self) -> int:
        """Bytes that all shards and staged bulks take in memory."""
        return self.staged_bytes + sum(shard.stored_bytes for shard, _ in self._shards.values())

    @property
    def failure(self) -> str | None:
        """Why some shard's journals take nothing until an image was built, if so."""
        failures = (files.failure for _, files in self._shards.values())
        return next((failure for failure in failures if failure is not None), None)

    def least_recently_used(self, *, besides: set[Shard]) -> Shard | None:
        """Return the shard to give up first when the bound is passed.

        Not one that a bulk is being staged for: its files are in the shard's directory.
        """
        staged_for = set(self.open_bulks.values())
        others = [
            shard
            for shard, _ in self._shards.values()
            if shard not in besides and shard.id not in staged_for
        ]
        return min(others, key=lambda shard: shard.last_used_ns, default=None)
