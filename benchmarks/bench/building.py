"""Having the daemon build an image at a moment of our choice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .daemons import BUILD_SECONDS, POLL_SECONDS, count_builds, is_rewriting, settle
from .peers.own import open_cache
from .verdicts import PeerFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .daemons import Server
    from .workload import Workload

LOT_BYTES = 256 * 1024
LAST_LOTS = 3
TRIES = 40
MIN_JOURNAL_BYTES = 1 << 20
IMAGE_PART = 8
"""An image is built when the journal exceeds 1 MiB and an eighth of it (docs/storage.md)."""


class Building:
    """The changes that make one daemon build: same entries, new bytes, in lots of 256 kB."""

    def __init__(self, server: Server, workload: Workload) -> None:
        self._server = server
        self._workload = workload
        self._next = 0
        self._version = 0

    def approach(self) -> None:
        """Write until few lots more are enough for a build. Raises PeerFailedError."""
        for _ in range(TRIES):
            settle(self._server)
            with open_cache(self._server.socket_path) as cache:
                (shard,) = cache.shards()
                limit = max(MIN_JOURNAL_BYTES, shard["image_bytes"] // IMAGE_PART)
                left = (limit - shard["journal_bytes"]) // LOT_BYTES
                if 0 <= left < LAST_LOTS:
                    return
                # By halves: what a lot adds to the journal is not known to the byte.
                for _ in range(max(1, left // 2)):
                    cache.put_many(self._lot())
        raise PeerFailedError("the daemon builds an image before or after it should")

    def trigger(self, watch: Callable[[], object] = lambda: None) -> tuple[int, int]:
        """Write what is missing; return when the build began and when the image was in use.

        Both are ns of CLOCK_MONOTONIC. `watch` is called every 10 ms meanwhile. The daemon lets
        some time pass between two builds: nothing is measured in it.
        """
        before = count_builds(self._server.socket_path)
        began, is_begun = time.monotonic_ns(), False
        deadline = time.monotonic() + BUILD_SECONDS
        with open_cache(self._server.socket_path) as cache:
            for _ in range(LAST_LOTS + 1):
                cache.put_many(self._lot())
            while cache.status()["counters"].get("builds", 0) == before:
                if time.monotonic() > deadline:
                    raise PeerFailedError(f"no image within {BUILD_SECONDS:.0f} s")
                is_begun = is_begun or is_rewriting(self._server)
                if not is_begun:
                    began = time.monotonic_ns()
                watch()
                time.sleep(POLL_SECONDS)
        return began, time.monotonic_ns()

    def _lot(self) -> dict[str, bytes]:
        lot: dict[str, bytes] = {}
        held = 0
        while held < LOT_BYTES:
            self._version += self._next == 0
            blob = self._workload.blob(self._next, self._version)
            lot[self._workload.names[self._next]] = blob
            held += len(blob)
            self._next = (self._next + 1) % len(self._workload)
        return lot
