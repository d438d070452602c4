"""A daemon that the tests of a module share: each finds that it serves, and holds nothing."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from ..running import Daemon, private_directory, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def kept_daemon() -> Iterator[Daemon]:
    """The daemon of `shared_daemon`, whatever state the last test left it in."""
    with private_directory() as directory:
        kept = Daemon(directory)
        try:
            yield kept
        finally:
            kept.end()


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.fixture
def shared_daemon(kept_daemon: Daemon) -> Daemon:
    """A daemon that a test may stop, hang or kill: the next one finds it running again.

    Nor is there anything of zsh's beside its socket.
    """
    for left in kept_daemon.directory.glob("*zsh-*"):
        remove(left)
    if kept_daemon.process is None or kept_daemon.process.poll() is not None:
        kept_daemon.start()
    os.kill(kept_daemon.pid, signal.SIGCONT)
    # What the last test's shells have sent is taken before it is dropped.
    wait_until(lambda: kept_daemon.status()["connections"] == 1, 20, "the last test's shells")
    with kept_daemon.connect() as client:
        for shard in client.ok("shards"):
            client.ok("drop_shard", shard["id"])
    return kept_daemon


@pytest.fixture
def asked_daemon(request: pytest.FixtureRequest) -> Daemon:
    """Where a test's shells ask: `daemon` where the test has one, or `idle_daemon`."""
    name = "daemon" if "daemon" in request.fixturenames else "idle_daemon"
    found: Daemon = request.getfixturevalue(name)
    return found
