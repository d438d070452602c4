"""Building images while the daemon serves, and keeping all shards within `max_bytes`.

A build is a snapshot at one generation. The journal is rotated there, so that the image covers
whole files; they are removed when it is on stable storage. Puts never wait for a build, unless
memory would pass its bound.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from autoloadd_protocol.errors import RequestError

from .errors import StorageError
from .exhaustion import run_or_end
from .storage.images import build_image
from .storage.pace import Pace, at_once

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .catalog import Catalog
    from .metrics import Metrics
    from .shard import Shard
    from .storage.files import Files
    from .storage.images import SealedImage, Snapshot
    from .storage.journal import Journal
    from .storage.syncing import SyncThread

    Built = tuple[SealedImage, int]

_logger = logging.getLogger(__name__)

_PAUSE_NS = 1_000_000_000
_PAUSES_PER_BUILD = 4
_LONGEST_PAUSE_NS = 10_000_000_000
_URGENT = 8
"""From this pressure on, where the journal is as long as the image, a build does not wait. Below it
there is a second between two, and four times what the last one took, 10 s at most: under a stream
of puts builds followed one another, and took half of the disk and of a core."""

_KEEP = 7 / 8
"""An over-full cache evicts to this part of its bound, so that not every put evicts again."""
_HARD = 9 / 8
"""From this part of the bound on writes wait for the build under way; without one that works they
are refused."""

_MEASURES = 64
"""How often all shards are added up while as much is written as the bound."""

_MOST_JOURNALS = 16
"""Of one shard: each is a file, however short."""


class Build:
    """One build: what it reads, at what pace, and what is to be freed when it is through."""

    def __init__(self, shard: Shard, covered: list[Journal], keep_bytes: int | None) -> None:
        self.shard = shard
        self.covered = covered
        self.pace = Pace()
        self.began_ns = time.monotonic_ns()
        self._before = shard.image
        self._snapshot: Snapshot | None = shard.begin_build(keep_bytes)

    def make(self, files: Files, directory: str) -> Built:
        """Return the image and how many entries were evicted. In a thread; raises StorageError."""
        assert self._snapshot is not None
        return build_image(files, directory, self._snapshot, self.pace)

    def free(self) -> None:
        """Give up what an image was built from: the image before it and the changes.

        In a thread: unmapping takes ms, and 16,000 changes that end at once 5 ms of the loop's.
        """
        assert self._snapshot is not None
        changes = self._snapshot.changes
        pace = at_once() if self.pace.is_hurried else Pace()
        while changes:
            changes.popitem()
            pace.rest()
        self._snapshot = self._before = None


class Builder:
    """Decides when a shard gets a new image, and has a thread build it; one at a time."""

    def __init__(
        self, catalog: Catalog, files: Files, sync_thread: SyncThread, metrics: Metrics
    ) -> None:
        self.on_built: Callable[[], None] = lambda: None
        self.drop_shard: Callable[[str, Callable[[object], None]], None] = lambda *_: None
        self.run_in_thread: Callable[[Callable[[], Built]], Awaitable[Built]] = partial(
            trio.to_thread.run_sync, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
        )
        self.free_in_thread: Callable[[Callable[[], None]], None] = partial(
            sync_thread.submit, done=lambda _error: None
        )
        self.nursery: trio.Nursery | None = None
        self._catalog = catalog
        self._files = files
        self._sync_thread = sync_thread
        self._metrics = metrics
        self._candidates: dict[Shard, None] = {}
        self._failed: dict[Shard, None] = {}
        self._build: Build | None = None
        self._not_before_ns = 0
        self._failure: StorageError | None = None
        self._dropping: str | None = None
        self._no_drop_before_ns = 0
        self._is_closing = False
        self._next_ns = 0
        self._written = catalog.max_bytes
        self._lasting = self._stored = self._on_disk = 0
        self._ended = trio.Event()

    @property
    def must_be_waited_for(self) -> bool:
        """Tell whether writes should wait for the build or drop under way: it makes room.

        At the hard bound one is begun, if there is none. Only between batches.
        """
        if not self._is_at_hard_bound():
            return False
        self.consider()
        if self._build is not None:
            self._build.pace.hurry()
        return self._build is not None or self._dropping is not None

    def check_room(self) -> None:
        """Raise StorageError where a write would pass the hard bound and no image can be built."""
        if self._failure is not None and self._is_at_hard_bound():
            reason = f"the cache is full, and no room can be made: {self._failure}"
            raise type(self._failure)(reason)

    def _is_at_hard_bound(self) -> bool:
        self._measure()
        return max(self._stored, self._on_disk) > self._catalog.max_bytes * _HARD

    def _measure(self) -> None:
        """Add up all shards, unless little was written since: with hundreds it takes a while."""
        catalog = self._catalog
        if self._written * _MEASURES >= catalog.max_bytes:
            self._written = 0
            self._lasting = catalog.lasting_bytes
            self._stored = catalog.stored_bytes - catalog.staged_bytes
            self._on_disk = catalog.disk_bytes

    def is_building(self, shard_id: str) -> bool:
        """Tell whether a shard's image is being built now."""
        return self._build is not None and self._build.shard.id == shard_id

    def look_at(self, shard: Shard, written: int = 0) -> None:
        """Note that a shard has changed, and how many bytes it may take more."""
        self._candidates[shard] = None
        self._written += written

    def want_image(self, shard: Shard) -> None:
        """Have an image built of a shard that has none: a client would map it."""
        shard.is_image_wanted = shard.entries > 0
        self.look_at(shard)

    def look_around(self) -> None:
        """Have everything measured that was written since the last time; from time to time.

        Where nothing more is written, what passed the bound last would stay for ever.
        """
        if self._written:
            self._written = self._catalog.max_bytes
            self._candidates.update((shard, None) for shard, _ in self._catalog)

    def consider(self) -> None:
        """Start a build if one is due. Only between batches: a build begins where a batch ended."""
        if self._build is not None or not self._candidates:
            return
        if self._is_closing or self._catalog.is_read_only:
            return
        if time.monotonic_ns() < self._not_before_ns:
            return
        changed = [shard for shard in self._candidates if self._catalog.find(shard.id) is shard]
        self._candidates = {}
        if not changed:
            return
        self._measure()
        failed = next((shard for shard in changed if shard in self._failed), None)
        if failed is not None:
            del self._failed[failed]
            self._start(failed, None)
        elif self._lasting > self._catalog.max_bytes:
            self._make_room()
        else:
            self._start_what_is_due(changed)
        if self._build is not None or self._dropping is not None:
            # They are looked at again when this one is through.
            self._candidates.update(dict.fromkeys(changed))

    def _start_what_is_due(self, changed: list[Shard]) -> None:
        due = next((shard for shard in changed if self._is_due(shard)), None)
        if due is None and self._on_disk > self._catalog.max_bytes:
            # Journals of changes that were changed again: the longest one has most to give.
            due = max(
                (shard for shard, _ in self._catalog),
                key=lambda shard: self._catalog.files_of(shard).journal_bytes,
            )
        if due is not None:
            self._start(due, None)

    def heal(self) -> None:
        """Have images built of shards whose journals failed: new files, from memory."""
        for shard, files in self._catalog:
            if files.failure is not None:
                self._failed[shard] = None
                self._candidates[shard] = None

    async def wait_until_idle(self) -> None:
        """Return when no image is being built."""
        while self._build is not None:
            self._ended = trio.Event()
            await self._ended.wait()

    async def build_all(self) -> None:
        """Build an image of every shard with changes: a clean stop leaves no journals.

        Nothing may be written meanwhile.
        """
        self._is_closing = True
        if self._build is not None:
            self._build.pace.hurry()
        await self.wait_until_idle()
        if self._catalog.is_read_only:
            return
        for shard, files in self._catalog:
            if files.journal_bytes:
                build = self._begin(shard, None)
                build.pace.hurry()
                await self._carry_out(build)

    def _is_due(self, shard: Shard) -> bool:
        files = self._catalog.files_of(shard)
        pressure = max(
            shard.build_pressure(files.journal_bytes), files.journal_count / _MOST_JOURNALS
        )
        if pressure <= 1 or pressure > _URGENT or time.monotonic_ns() >= self._next_ns:
            return pressure > 1
        self._candidates[shard] = None
        return False

    def _make_room(self) -> None:
        if self._dropping is not None:
            return
        victim = self._catalog.least_recently_used()
        if victim is not None and time.monotonic_ns() >= self._no_drop_before_ns:
            _logger.info("over max_bytes: dropping shard %s", victim.producer)
            self._dropping = victim.id
            self.drop_shard(victim.id, self._note_drop)
            return
        # Where dropping fails the bound holds all the same, at the cost of the largest shard.
        shard = max((shard for shard, _ in self._catalog), key=lambda each: each.lasting_bytes)
        others = self._catalog.lasting_bytes - shard.lasting_bytes
        self._start(shard, max(int(self._catalog.max_bytes * _KEEP) - others, 0))

    def _start(self, shard: Shard, keep_bytes: int | None) -> None:
        assert self.nursery is not None
        self.nursery.start_soon(run_or_end, self._carry_out, self._begin(shard, keep_bytes))

    def _begin(self, shard: Shard, keep_bytes: int | None) -> Build:
        covered = self._catalog.files_of(shard).rotate()
        self._build = Build(shard, covered, keep_bytes)
        return self._build

    async def _carry_out(self, build: Build) -> None:
        files = self._catalog.files_of(build.shard)
        make = partial(build.make, self._files, files.directory)
        try:
            # Cancelled only when the daemon ends and the disk does not answer: what the thread
            # does then is as a crash would leave it.
            image, evicted = await self.run_in_thread(make)
        except StorageError as exc:
            self._fail(build.shard, exc)
        else:
            # Forgotten first: a journal that failed and is covered now is no failure any more.
            files.forget(build.covered)
            self._failure = None
            self._install(build.shard, image, evicted)
            self._sync_thread.submit(partial(_remove_journals, build.covered), self._note_removal)
            self.free_in_thread(build.free)
        self._build = None
        self._written = self._catalog.max_bytes
        now = time.monotonic_ns()
        pause_ns = min(_PAUSES_PER_BUILD * (now - build.began_ns), _LONGEST_PAUSE_NS)
        self._next_ns = now + max(_PAUSE_NS, pause_ns)
        self._ended.set()
        self.on_built()

    def _install(self, shard: Shard, image: SealedImage, evicted: int) -> None:
        shard.finish_build(image, evicted)
        self._metrics.count("builds")
        self._metrics.count("evicted", evicted)
        if self._metrics.health.is_degraded and self._catalog.failure is None:
            self._metrics.health.heal()
            _logger.warning("storage takes writes again, in new files")

    def _fail(self, shard: Shard, error: StorageError) -> None:
        shard.abandon_build()
        self._failure = error
        self._metrics.count("build_failures")
        if self._metrics.health.is_degraded:
            self._metrics.health.report(error)
        self._not_before_ns = time.monotonic_ns() + _PAUSE_NS
        self.look_at(shard)
        _logger.error("%s; the journal goes on, next attempt in 1 s", error)

    def _note_drop(self, outcome: object) -> None:
        self._dropping = None
        self._written = self._catalog.max_bytes
        if not isinstance(outcome, RequestError):
            self._metrics.count("evicted_shards")
        else:
            self._no_drop_before_ns = time.monotonic_ns() + _PAUSE_NS
            _logger.warning("a shard could not be dropped: %s", outcome)

    def _note_removal(self, error: StorageError | None) -> None:
        if error is not None:
            _logger.warning("a journal that is not needed could not be removed: %s", error)


def _remove_journals(journals: list[Journal]) -> None:
    for journal in journals:
        journal.close()
        journal.remove()
