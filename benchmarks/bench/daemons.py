"""Daemons of our own, filled with a workload; and what is asked of any server while it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from own_daemon import Daemon, DaemonFailedError

from .peers.own import open_cache
from .verdicts import PeerFailedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .workload import Workload

BUILD_SECONDS = 300.0
POLL_SECONDS = 0.01
MAX_BYTES = 16 << 30
"""Bound of every daemon here: nothing may be evicted, up to 1,000,000 entries."""


@dataclass(frozen=True)
class Server:
    """A running server: where it listens, which process it is, and where its files are."""

    socket_path: str
    pid: int
    directory: Path


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until a condition holds. Raises PeerFailedError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise PeerFailedError(f"waited {seconds:g} s for {what}")
        time.sleep(POLL_SECONDS)


def start_daemon(directory: Path) -> Daemon:
    """Return a daemon that accepts. Raises DaemonFailedError."""
    daemon = spawn_daemon(directory)
    try:
        daemon.wait_ready()
    except BaseException:
        daemon.kill()
        raise
    return daemon


def spawn_daemon(directory: Path) -> Daemon:
    """Return a daemon whose process has just been started."""
    return Daemon(str(directory), "--max-bytes", str(MAX_BYTES))


def stop_daemon(daemon: Daemon) -> None:
    """Stop a daemon. Raises PeerFailedError unless it ends cleanly."""
    try:
        daemon.stop()
    except DaemonFailedError as exc:
        raise PeerFailedError(str(exc)) from exc
    finally:
        daemon.kill()


def fill_daemon(socket_path: str, workload: Workload) -> None:
    """Store a workload in an empty daemon; return when its image is on disk and in use.

    Of 500 entries or more: no image is built of less than 1 MiB.
    """
    with open_cache(socket_path) as cache:
        cache.replace(workload.entries(), sync="fsync")
        wait_until(lambda: is_built(socket_path), BUILD_SECONDS, "the first image")


def settle(server: Server) -> None:
    """Return when a server rewrites none of its files. Raises PeerFailedError if it never ends."""
    wait_until(
        lambda: not is_rewriting(server),
        BUILD_SECONDS, f"{server.directory.name} to end its rewriting",
    )  # fmt: skip


def is_rewriting(server: Server) -> bool:
    """Tell whether a server rewrites a file: an image of ours, an append file of redis."""
    temporary = ("*/image.tmp", "temp-*.aof", "*/temp-*.aof")
    return any(
        next(server.directory.glob(f"{where}{name}"), None)
        for name in temporary for where in ("", "cache/")
    )  # fmt: skip


def count_builds(socket_path: str) -> int:
    """Return how many images the daemon has built."""
    with open_cache(socket_path) as cache:
        return int(cache.status()["counters"].get("builds", 0))


def is_built(socket_path: str) -> bool:
    """Tell whether the daemon has an image that holds everything."""
    with open_cache(socket_path) as cache:
        (shard,) = cache.shards()
        return bool(shard["image_bytes"]) and not shard["journal_bytes"]
