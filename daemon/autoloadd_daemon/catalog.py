"""All shards of the daemon, by id, and the bound on what they take together."""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import StartError, StorageError, storage_error
from .shard import Shard
from .storage.bulks import BulkNumbers
from .storage.files import is_directory
from .storage.image_file import ImageFile
from .storage.records import new_epoch
from .storage.recovery import Recovered, read_shard, recover_shard
from .storage.set_aside import (
    SetAside,
    clear_away,
    find_set_aside,
    is_set_aside,
    reason_of,
    remove_excess,
    set_aside_file,
    size_of,
)
from .storage.shard_files import ShardFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from autoloadd_protocol.producer import Producer

    from .metrics import Metrics
    from .storage.bulks import StagedBulk
    from .storage.files import Files
    from .storage.images import SealedImage
    from .storage.journal import Journal

_logger = logging.getLogger(__name__)

DROPPED = ".dropped-"
PROBE = ".probe"
_SET_ASIDE_FRACTION = 10
_PROBE_BYTES = 65_536
_SHARD_ID = re.compile(r"[\w.+-]+-[0-9a-f]{16}", re.ASCII)
SHARD_BYTES = 16_384
"""What a shard takes beside its entries: a directory and a file on disk, its part of the heap."""


_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def _is_refusal(error: OSError | StorageError) -> bool:
    """Tell whether a disk said that it takes no writes, or none now."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    return isinstance(cause, OSError) and cause.errno in _REFUSALS


class Catalog:
    """The shards that there are. `max_bytes` bounds them with what was set aside; staged bulks too.

    `lost` says why nothing may be written any more: the directory at the path is not the one that
    this daemon has locked, so it may be another daemon's.
    """

    def __init__(self, files: Files, cache_dir: str, metrics: Metrics, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.staged_bytes = 0
        self.set_aside_bytes = 0
        self.open_journals: set[Journal] = set()
        """Journals that hold a descriptor."""
        self.lost: str | None = None
        self.unwritable: StorageError | None = None
        """Why nothing can be written since the start, if so: what is served is what was read."""
        self.unchecked: list[Shard] = []
        """Shards that are served from their image's file, until all of it was checked."""
        self.open_bulks: dict[int, str] = {}
        """Bulks that are being staged: their tokens, and the ids of their shards."""
        self.on_forget: Callable[[Shard], None] = lambda _shard: None
        self.cache_dir = cache_dir
        self._files = files
        self._metrics = metrics
        self._shards: dict[str, tuple[Shard, ShardFiles]] = {}
        self._numbers = BulkNumbers()
        self._drops = 0

    def recover(self, *, later_bytes: int | None = None) -> None:
        """Load every shard that the cache directory holds. Raises StartError: nothing changed.

        Images larger than `later_bytes` are not read yet (`unchecked`). Where the disk takes no
        writes (`unwritable`), what there is is served as it is read. Since nothing is written then,
        this may be called again when it does.
        """
        before = self._shards
        self._shards = {}
        self.unchecked = []
        self._metrics.forget_recovery()
        try:
            self._recover_all(later_bytes)
            self.unwritable = None
        except (OSError, StorageError) as exc:
            if not _is_refusal(exc):
                self._shards = before
                raise StartError(f"cannot recover {self.cache_dir}: {exc}") from exc
            self._read_all(before)
            error = exc if isinstance(exc, StorageError) else storage_error(self.cache_dir, exc)
            self.unwritable = type(error)(f"nothing can be written: {error}")
        for shard, _ in before.values():
            # Others stand in their place: what clients have mapped of these changes no more.
            self.on_forget(shard)

    def _read_all(self, before: dict[str, tuple[Shard, ShardFiles]]) -> None:
        """Load every shard that can be read, and change nothing on disk. Raises StartError."""
        self._shards = {}
        self.unchecked = []
        try:
            for name in self._files.names(self.cache_dir):
                path = f"{self.cache_dir}/{name}"
                if _SHARD_ID.fullmatch(name) and is_directory(path):
                    recovered = read_shard(self._files, path).shard
                    if recovered is not None:
                        self._add(recovered)
        except OSError as exc:
            self._shards = before
            raise StartError(f"cannot read {self.cache_dir}: {exc}") from exc

    def _recover_all(self, later_bytes: int | None) -> None:
        self._metrics.set_aside.extend(clear_away(self._files, f"{self.cache_dir}/{PROBE}"))
        for name in self._files.names(self.cache_dir):
            path = f"{self.cache_dir}/{name}"
            if name.startswith(DROPPED):
                self._files.remove_tree(path)
            elif is_set_aside(name):
                continue
            elif is_directory(path):
                self._recover_shard(name, path, later_bytes)
            elif _SHARD_ID.fullmatch(name):
                reason = "no directory, where a shard belongs"
                self._metrics.set_aside.append(set_aside_file(self._files, path, reason))
        self._limit_set_aside()

    def _limit_set_aside(self) -> None:
        """Report what lies aside from earlier starts too, and let go what is too much of it."""
        names = self._files.names(self.cache_dir)
        directories = [path for name in names if os.path.isdir(path := f"{self.cache_dir}/{name}")]
        kept = find_set_aside(self._files, [self.cache_dir, *directories])
        for path in remove_excess(self._files, kept, self.max_bytes // _SET_ASIDE_FRACTION):
            _logger.warning("removed %s: more recent files are set aside", path)
            kept.remove(path)
        new = {aside.file: aside for aside in self._metrics.set_aside}
        self._metrics.set_aside.clear()
        self._metrics.set_aside.extend(
            new.get(path, SetAside(path, f"set aside at an earlier start: {reason_of(path)}"))
            for path in kept
        )
        self.set_aside_bytes = sum(map(size_of, kept))

    def _recover_shard(self, name: str, path: str, later_bytes: int | None) -> None:
        recovered = recover_shard(self._files, path, later_bytes)
        if not isinstance(recovered, Recovered):
            self._metrics.set_aside.extend(recovered)
            # Only a shard's own: without a runtime directory the socket's, `run`, lies here too.
            if _SHARD_ID.fullmatch(name) and not self._files.names(path):
                self._files.remove_directory(path)
            return
        if recovered.producer.shard_id() != name:
            raise StartError(f"{path} holds the shard of {recovered.producer}: move it away")
        self._metrics.set_aside.extend(recovered.set_aside)
        self._metrics.count("torn_bytes", recovered.torn_bytes)
        if recovered.missing is not None:
            self._metrics.count("journals_missing")
            _logger.error("missing: %s; nothing from before it is served", recovered.missing)
        self._add(recovered).take_over(recovered)

    def _add(self, recovered: Recovered) -> ShardFiles:
        """Take a shard into the catalog; return its files, that know of no journals yet."""
        shard = Shard(recovered.producer, epoch=recovered.epoch, built_at_ns=recovered.built_at_ns)
        shard.take_over(recovered)
        shard_files = self._make_files(shard.producer, shard.epoch)
        self._shards[shard.id] = (shard, shard_files)
        if isinstance(shard.image, ImageFile):
            self.unchecked.append(shard)
        return shard_files

    def take_loaded(self, shard: Shard, image: SealedImage) -> None:
        """Go on with a shard's image in memory: its file was checked."""
        shard.take_loaded(image)
        self.unchecked.remove(shard)

    def recover_again(self) -> None:
        """Recover once more, since an image is damaged that was not checked at the start.

        Nothing was written since: the outcome is what it would have been. Raises StartError.
        """
        if self.lost is None:
            self.recover()
            return
        # What lies there may be another daemon's. What is not known to be good is not served.
        for shard in self.unchecked:
            self.forget(shard.id)
        self.unchecked = []

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
            shard = Shard(producer, epoch=new_epoch(), built_at_ns=time.time_ns())
            self._shards[shard_id] = (shard, self._make_files(producer, shard.epoch))
        return self._shards[shard_id]

    def forget_unwritten(self, shard: Shard) -> None:
        """Take out a shard whose first write was refused: nothing of it is on disk.

        One with entries was read where nothing can be written: its journals are not ours yet.
        """
        files = self.files_of(shard)
        if shard.image is None and not files.journal_count and not shard.entries:
            del self._shards[shard.id]
            with suppress(OSError):
                self._files.remove_directory(files.directory)

    def stage(self, producer: Producer, mode: str, built_at_ns: int | None) -> StagedBulk:
        """Return a new staged bulk; the shard is made by the commit. Raises StorageError."""
        self.check_in_place()
        found = self._shards.get(producer.shard_id())
        shard_files = self._make_files(producer, 0) if found is None else found[1]
        return shard_files.stage(mode, built_at_ns)

    def _make_files(self, producer: Producer, epoch: int) -> ShardFiles:
        directory = f"{self.cache_dir}/{producer.shard_id()}"
        return ShardFiles(
            self._files, directory, producer, epoch, self._numbers, self.open_journals
        )

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
                self._rename_durably(shard_files, dropped)
        except OSError as exc:
            raise storage_error(shard_files.directory, exc) from exc
        shard_files.close()
        try:
            self._files.remove_tree(dropped)
        except OSError as exc:
            # The shard is gone already; what is left of it goes at the next start.
            _logger.warning("%s could not be removed: %s", dropped, exc)

    def _rename_durably(self, shard_files: ShardFiles, dropped: str) -> None:
        """Rename a shard's directory; where that does not last, back. Raises OSError."""
        self._files.rename(shard_files.directory, dropped)
        try:
            self._files.sync_directory(self.cache_dir)
        except OSError as exc:
            with suppress(OSError):
                self._files.rename(dropped, shard_files.directory)
            # Which of the two names a power loss leaves is open: nothing is acknowledged before an
            # image with all of it is in a directory that was synced.
            shard_files.fail(f"{shard_files.directory}: dropping it failed: {exc.strerror}")
            raise

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
        if self.unwritable is not None:
            # A new one: each raise of the same would lengthen its traceback.
            raise type(self.unwritable)(str(self.unwritable))

    def probe(self) -> None:
        """Try whether the disk takes a small file. Raises StorageError."""
        if self.lost is not None:
            raise StorageError(self.lost)
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
            raise storage_error(path, exc) from exc

    @property
    def is_read_only(self) -> bool:
        """Tell whether the cache directory as a whole takes no writes, or none yet."""
        return self.lost is not None or self.unwritable is not None or self.is_loading

    @property
    def is_loading(self) -> bool:
        """Tell whether there are images that are not checked yet.

        Until then nothing is written: where one is damaged, recovery is done once more, on files
        that are as they were at the start. Gets are answered; what needs all of an image waits.
        """
        return bool(self.unchecked)

    def __iter__(self) -> Iterator[tuple[Shard, ShardFiles]]:
        return iter(list(self._shards.values()))

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def stored_bytes(self) -> int:
        """Bytes that all shards and staged bulks take in memory."""
        shards = sum(shard.stored_bytes for shard, _ in self._shards.values())
        return self.staged_bytes + shards + len(self._shards) * SHARD_BYTES

    @property
    def lasting_bytes(self) -> int:
        """Bytes that stay when images are built of everything: of shards, and what is set aside.

        A staged bulk has no part: one that is given up must not have cost others their entries.
        """
        shards = sum(shard.lasting_bytes for shard, _ in self._shards.values())
        return self.set_aside_bytes + shards + len(self._shards) * SHARD_BYTES

    @property
    def disk_bytes(self) -> int:
        """Bytes of images, journals with their bulks, and files that were set aside."""
        journals = sum(files.disk_bytes for _, files in self._shards.values())
        images = sum(shard.image_bytes for shard, _ in self._shards.values())
        return self.set_aside_bytes + journals + images + len(self._shards) * SHARD_BYTES

    @property
    def failure(self) -> str | None:
        """Why some shard's journals take nothing until an image was built, if so."""
        if self.unwritable is not None:
            return str(self.unwritable)
        failures = (files.failure for _, files in self._shards.values())
        return next((failure for failure in failures if failure is not None), None)

    def least_recently_used(self) -> Shard | None:
        """Return the shard to give up first when the bound is passed, if there is one.

        Never the one that was used last. Nor one that a bulk is being staged for: its file is in
        the shard's directory.
        """
        by_age = sorted((shard for shard, _ in self._shards.values()), key=_last_used)
        staged_for = set(self.open_bulks.values())
        return next((shard for shard in by_age[:-1] if shard.id not in staged_for), None)

    def with_open_journals(self) -> list[ShardFiles]:
        """Return the files of shards whose journal is being written, least recently used first."""
        found = [(shard, files) for shard, files in self._shards.values() if files.is_open]
        return [files for _, files in sorted(found, key=lambda each: _last_used(each[0]))]


def _last_used(shard: Shard) -> int:
    return shard.last_used_ns
