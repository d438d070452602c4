"""The servers and files that are measured: each in a directory of its own, filled with W."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Self

from autoloadd_protocol.limits import SOCKET_PATH_BYTES

from .daemons import POLL_SECONDS, Server, fill_daemon, start_daemon, stop_daemon
from .peers import embedded, locked_file_cache, memcached, redis_server
from .peers.own import open_cache
from .verdicts import CannotMeasureError, PeerFailedError
from .workload import ENTRIES, make_workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

START_SECONDS = 20.0
STOP_SECONDS = 20.0


class PeerProcess:
    """A server that is not ours. Killed at the end: it has nothing to lose."""

    def __init__(self, command: list[str], directory: Path) -> None:
        if shutil.which(command[0]) is None:
            raise CannotMeasureError(f"{command[0]} is not installed: apt-get install {command[0]}")
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.pid = self._process.pid

    def wait_ready(self, is_ready: Callable[[], bool]) -> None:
        """Return when it answers. Raises PeerFailedError with what it logged."""
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                log = self._log.read_text(errors="replace")[-2000:]
                raise PeerFailedError(f"{self._process.args!r} did not start\n{log}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)


@dataclass
class Servers:
    """What is measured, started at its first use and stopped at the end.

    `place` is a directory on the file system whose syncs are measured; its path must be short
    enough for sockets.
    """

    place: Path
    _open: ExitStack = field(default_factory=ExitStack)
    _daemons: dict[str, Server] = field(default_factory=dict)
    _redis: dict[str, Server] = field(default_factory=dict)
    _files: dict[int, Path] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        """Stop all of them."""
        self._open.close()

    def directory(self, name: str) -> Path:
        """Return a new directory that only we can enter: clients check that."""
        path = self.place / name
        if len(os.fsencode(path / "socket")) > SOCKET_PATH_BYTES:
            raise CannotMeasureError(f"{path}/socket is too long for a socket: use --place")
        # Of a server that did not start: the next experiment that needs it tries again.
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        return path

    def workload_file(self, entries: int = ENTRIES) -> Path:
        """Return the file of a workload for the load generator."""
        if entries not in self._files:
            path = self.place / f"workload-{entries}"
            make_workload(entries).write(path)
            self._files[entries] = path
        return self._files[entries]

    def autoloadd(self, entries: int = ENTRIES, purpose: str = "read") -> Server:
        """Return a daemon with this many entries, all of them in its image.

        Daemons of one size and different purposes are different processes.
        """
        key = f"own-{purpose}-{entries}"
        if key not in self._daemons:
            directory = self.directory(key)
            daemon = start_daemon(directory)
            self._open.callback(stop_daemon, daemon)
            fill_daemon(daemon.socket_path, make_workload(entries))
            with open_cache(daemon.socket_path) as cache:
                pid = cache.status()["pid"]
            self._daemons[key] = Server(daemon.socket_path, pid, directory)
        return self._daemons[key]

    def redis(self, append: str | None = None) -> Server:
        """Return a redis-server with W. `append` is its appendfsync; None: memory only."""
        key = f"redis-{append or 'memory'}"
        if key not in self._redis:
            self._redis[key] = self._start_redis(key, append)
        return self._redis[key]

    @cached_property
    def memcached(self) -> Server:
        """Return a memcached with W."""
        directory = self.directory("memcached")
        path = str(directory / "socket")
        command = ["memcached", "-s", path, "-m", "1024", "-t", "1", "-a", "0700", "-u", "root"]
        process = self._start(command[:-2] if os.geteuid() else command, directory)
        process.wait_ready(lambda: memcached.is_ready(path))
        with memcached.with_pymemcache(path).watched():
            memcached.load(path, make_workload().entries())
        return Server(path, process.pid, directory)

    @cached_property
    def lmdb_path(self) -> str:
        """Return an lmdb file with W."""
        path = str(self.directory("lmdb") / "data")
        with embedded.with_lmdb(path).watched():
            embedded.load_lmdb(path, make_workload().entries())
        return path

    @cached_property
    def sqlite_path(self) -> str:
        """Return an sqlite file with W."""
        path = str(self.directory("sqlite") / "data")
        with embedded.with_sqlite(path).watched():
            embedded.load_sqlite(path, make_workload().entries())
        return path

    @cached_property
    def diskcache_directory(self) -> str:
        """Return diskcache's directory with W."""
        path = str(self.directory("diskcache"))
        with embedded.with_diskcache(path).watched():
            embedded.load_diskcache(path, make_workload().entries())
        return path

    @cached_property
    def locked_file_path(self) -> str:
        """Return the file of a locked-file cache with W."""
        path = str(self.directory("locked-file") / "data")
        locked_file_cache.load(path, make_workload().entries())
        return path

    def _start(self, command: list[str], directory: Path) -> PeerProcess:
        process = PeerProcess(command, directory)
        self._open.callback(process.stop)
        return process

    def _start_redis(self, key: str, append: str | None) -> Server:
        directory = self.directory(key)
        path = str(directory / "socket")
        durability = ["--appendonly", "yes", "--appendfsync", append] if append else []
        # fmt: off
        process = self._start(
            ["redis-server", "--port", "0", "--unixsocket", path, "--unixsocketperm", "700",
             "--dir", str(directory), "--save", "", "--io-threads", "1", *durability], directory,
        )
        # fmt: on
        process.wait_ready(lambda: redis_server.is_ready(path))
        with redis_server.redis_py(path).watched():
            redis_server.load(path, make_workload().entries())
        return Server(path, process.pid, directory)
