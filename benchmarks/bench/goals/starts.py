"""What a start takes: of a client (goal 3), of the daemon (goal 8), of a command (goal 9)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, ClassVar

from autoloadd_client.errors import UnreachableError
from bench.daemons import fill_daemon, spawn_daemon, start_daemon, stop_daemon
from bench.fresh import time_first_get
from bench.peers import embedded, memcached, own, redis_server
from bench.setting import medians_in_turn
from bench.verdicts import Goal, PeerFailedError
from bench.workload import MTIME_NS, PRODUCER, make_workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.peers.client import Peer
    from bench.setting import Setting
    from bench.verdicts import Figures

FIRST_GET = "first get of a fresh client, µs"
READY = "start to first get, ms"
TRIO = "start of an empty trio program, ms"
FEW, MANY = 1_000, 100_000
SIZES = (16_000, 100_000)
FRESH_CLIENTS = 11
STARTS = 5
COMMANDS = 21
READY_SECONDS = 60.0
POLL_SECONDS = 0.0005

_TRIO_PROGRAM = """
import os, trio
async def main():
    os.write(1, b"x")
trio.run(main)
"""


class FreshClients:
    """Connect, greet, first get, in a fresh process whose imports are done."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=3, what="fresh client, against redis-py", unit="µs", at_most=0.35,
             ours=f"{FIRST_GET}: {own.KEY}", peer=f"{FIRST_GET}: {redis_server.KEY}"),
        Goal(number=3, what=f"fresh client at {MANY:,} entries, against {FEW:,}", unit="µs",
             at_most=1.3, ours=f"{FIRST_GET}: {MANY} entries", peer=f"{FIRST_GET}: {FEW} entries"),
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """Start the servers. W is in all but those of other sizes."""
        servers = setting.servers
        self._times = setting.times(FRESH_CLIENTS)
        self._asked: dict[str, tuple[Peer, int]] = {
            f"{FIRST_GET}: {peer.key}": (peer, len(make_workload()))
            for peer in (
                own.own(servers.autoloadd().socket_path),
                redis_server.redis_py(servers.redis().socket_path),
                memcached.with_pymemcache(servers.memcached.socket_path),
                memcached.with_pylibmc(servers.memcached.socket_path),
                embedded.with_lmdb(servers.lmdb_path),
                embedded.with_sqlite(servers.sqlite_path),
                embedded.with_diskcache(servers.diskcache_directory),
            )
        }
        for entries in (FEW, MANY):
            peer = own.own(servers.autoloadd(entries).socket_path)
            self._asked[f"{FIRST_GET}: {entries} entries"] = peer, entries

    def close(self) -> None:
        """Nothing is held between rounds."""

    def run_round(self, number: int, figures: Figures) -> None:
        """Start processes for each, in turn; a round's figure is the median of its processes."""
        random = Random(number)

        def time_us(key: str) -> float:
            peer, entries = self._asked[key]
            workload = make_workload(entries)
            chosen = random.randrange(entries)
            return time_first_get(peer, workload.names[chosen], workload.sizes[chosen]) / 1e3

        taken = medians_in_turn(self._asked, time_us, number=number, times=self._times)
        figures.add_all(taken)


class DaemonStarts:
    """From starting the daemon's process to a first correct get of a random entry."""

    GOALS: ClassVar[tuple[Goal, ...]] = tuple(
        Goal(number=8, what=f"ready with {entries:,} entries, against an empty trio program",
             unit="ms", at_most=1.25, ours=f"{READY}: {entries} entries", peer=TRIO)
        for entries in SIZES
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """Fill a cache directory for each size."""
        self._times = setting.times(STARTS)
        self._directories = {}
        for entries in SIZES:
            directory = setting.servers.directory(f"start-{entries}")
            fill_directory(directory, entries)
            self._directories[entries] = directory

    def close(self) -> None:
        """No daemon runs between rounds."""

    def run_round(self, number: int, figures: Figures) -> None:
        """Start each in turn; a round's figure is the median of its starts."""
        random = Random(number)
        kinds: dict[str, Callable[[], float]] = {TRIO: time_trio_start}
        for entries, directory in self._directories.items():
            kinds[f"{READY}: {entries} entries"] = _daemon_timer(directory, entries, random)
        taken = medians_in_turn(kinds, lambda kind: kinds[kind](), number=number, times=self._times)
        figures.add_all(taken)


class Commands:
    """Processes that a shell starts, each in turn with an empty one of the same interpreter."""

    _EMPTY: ClassVar = "python -c pass, ms"
    _GET: ClassVar = "autoloadctl get, ms"
    _IMPORT: ClassVar = "python -c 'import autoloadd_client', ms"
    _CACHE: ClassVar = "python -c 'from autoloadd_client import Cache', ms"
    _CACHE_EXTRA: ClassVar = "from autoloadd_client import Cache, over a bare start, ms"
    _EXTRA: ClassVar = "import autoloadd_client, over a bare start, ms"
    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=9, what="autoloadctl get, against python -c pass", unit="ms", at_most=1.15,
             ours=_GET, peer=_EMPTY),
        Goal(number=9, what="import autoloadd_client, ms over a bare start", unit="ms", at_most=6,
             ours=_EXTRA),
        Goal(number=9, what="the same with its Cache", unit="ms", at_most=6, ours=_CACHE_EXTRA),
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """See that the command prints what was stored."""
        self._times = setting.times(COMMANDS)
        self._socket = setting.servers.autoloadd().socket_path
        workload = make_workload()
        self._get = [
            str(Path(sys.executable).with_name("autoloadctl")), "get", workload.names[0],
            "--producer", PRODUCER, "--mtime", str(MTIME_NS), "--socket", self._socket,
        ]  # fmt: skip
        ran = subprocess.run(self._get, capture_output=True, check=False)
        if ran.stdout != workload.blob(0):
            raise PeerFailedError(f"autoloadctl get: {len(ran.stdout)} bytes, {ran.stderr!r}")

    def close(self) -> None:
        """Nothing is held between rounds."""

    def run_round(self, number: int, figures: Figures) -> None:
        """Start each in turn; a round's figure is the median of its processes."""
        python = sys.executable
        commands = {
            self._EMPTY: [python, "-c", "pass"],
            self._GET: self._get,
            self._IMPORT: [python, "-c", "import autoloadd_client"],
            self._CACHE: [python, "-c", "from autoloadd_client import Cache"],
        }
        taken = medians_in_turn(
            commands, lambda kind: time_command(commands[kind]), number=number, times=self._times
        )
        figures.add_all(taken)
        bare = taken[self._EMPTY]
        figures.add(self._EXTRA, max(0.0, taken[self._IMPORT] - bare))
        figures.add(self._CACHE_EXTRA, max(0.0, taken[self._CACHE] - bare))


def fill_directory(directory: Path, entries: int) -> None:
    """Leave a cache directory as a clean stop leaves it."""
    daemon = start_daemon(directory)
    try:
        fill_daemon(daemon.socket_path, make_workload(entries))
        stop_daemon(daemon)
    finally:
        daemon.kill()


def time_daemon_start(directory: Path, entries: int, chosen: int) -> float:
    """Return the ms from starting the process to the right answer to a get of one entry."""
    workload = make_workload(entries)
    started = time.perf_counter()
    daemon = spawn_daemon(directory)
    try:
        blob = _first_answer(daemon.socket_path, workload.names[chosen], started)
        taken = (time.perf_counter() - started) * 1e3
        workload.check(chosen, blob)
        # Answered when everything is read: only then can it be said that everything is stored.
        with own.open_cache(daemon.socket_path) as cache:
            cache.count()
        stop_daemon(daemon)
    finally:
        daemon.kill()
    return taken


def time_trio_start() -> float:
    """Return the ms from starting a process to a byte that it writes from within trio."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", _TRIO_PROGRAM], stdout=subprocess.PIPE)
    assert process.stdout is not None, "it was asked for"
    said = process.stdout.read(1)
    taken = (time.perf_counter() - started) * 1e3
    process.stdout.close()
    if process.wait() != 0 or said != b"x":
        raise PeerFailedError("an empty trio program failed")
    return taken


def time_command(command: list[str]) -> float:
    """Return the ms from starting a process to its end. Raises PeerFailedError unless it is 0."""
    nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    started = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=nowhere)
    _, status = os.waitpid(pid, 0)
    taken = (time.perf_counter() - started) * 1e3
    if status != 0:
        raise PeerFailedError(f"{command}: exit status {os.waitstatus_to_exitcode(status)}")
    return taken


def _daemon_timer(directory: Path, entries: int, random: Random) -> Callable[[], float]:
    return lambda: time_daemon_start(directory, entries, random.randrange(entries))


def _first_answer(socket_path: str, name: str, started: float) -> bytes | None:
    with own.open_cache(socket_path) as cache:
        while True:
            try:
                return cache.get(name)
            except UnreachableError as exc:
                if time.perf_counter() - started > READY_SECONDS:
                    raise PeerFailedError(f"not ready in {READY_SECONDS:.0f} s") from exc
                time.sleep(POLL_SECONDS)
