"""What a new image costs while it is built (goal 7), and what all of it holds (goal 8)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from bench.building import Building
from bench.daemons import BUILD_SECONDS
from bench.load import Load, finish, read_dump
from bench.memory import memory_bytes
from bench.peers import own, redis_server
from bench.verdicts import Goal
from bench.waits import longest_gap, p99
from bench.workload import make_workload

if TYPE_CHECKING:
    from bench.peers.client import Client
    from bench.setting import Setting
    from bench.verdicts import Figures

SIZES = (16_000, 100_000)
IDLE_SECONDS = 0.6
TAIL_SECONDS = 0.2

Samples = list[tuple[int, int]]


class Stalls:
    """One connection asks all the time; what it waits for while an image is built."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=7, what="longest time without an answer during a build of W", unit="ms",
             at_most=10, ours=f"gap, ms: {SIZES[0]} entries"),
        Goal(number=7, what="gets' p99 during a build of W, against idle", unit="µs", at_most=3.5,
             ours=f"p99 during a build, µs: {SIZES[0]} entries",
             peer=f"p99 idle, µs: {SIZES[0]} entries"),
        Goal(number=7, what="the same gap at 100,000 entries", unit="ms", at_most=25,
             ours=f"gap, ms: {SIZES[1]} entries"),
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """Start and fill a daemon of each size."""
        self._setting = setting
        self._servers = {n: setting.servers.autoloadd(n, "build") for n in SIZES}
        self._buildings = {n: Building(s, make_workload(n)) for n, s in self._servers.items()}

    def close(self) -> None:
        """Nothing is held between rounds."""

    def run_round(self, number: int, figures: Figures) -> None:
        """Build one image of each size."""
        for entries in SIZES:
            samples, began, ended = self._build_under_load(entries, number)
            idle = [s for s in samples if s[1] < began]
            during = [s for s in samples if began <= s[1] and s[0] <= ended]
            figures.add(f"gap, ms: {entries} entries", longest_gap(samples, began, ended) / 1e6)
            figures.add(f"gap idle, ms: {entries} entries", longest_gap(samples, 0, began) / 1e6)
            figures.add(f"p99 idle, µs: {entries} entries", p99(idle) / 1e3)
            figures.add(f"p99 during a build, µs: {entries} entries", p99(during) / 1e3)
            figures.add(f"build, ms: {entries} entries", (ended - began) / 1e6)

    def _build_under_load(self, entries: int, number: int) -> tuple[Samples, int, int]:
        server = self._servers[entries]
        building = self._buildings[entries]
        dump = server.directory / "samples"
        building.approach()
        load = Load(
            program=self._setting.program, protocol="autoloadd", socket_path=server.socket_path,
            workload=self._setting.servers.workload_file(entries), seconds=BUILD_SECONDS,
            seed=number + 1,
        )  # fmt: skip
        process = load.start("--dump", str(dump))
        try:
            time.sleep(IDLE_SECONDS)
            began, ended = building.trigger()
            time.sleep(TAIL_SECONDS)
            process.terminate()
            finish(process, 0)
        finally:
            process.kill()
        return read_dump(dump), began, ended


class Memory:
    """What the daemon and redis-server hold after every entry of W was read once."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=8, what="memory with W, against redis-server", unit="MB", at_most=1.5,
             ours=f"memory, MB: {own.KEY}", peer="memory, MB: redis-server"),
        Goal(number=8, what="images more during a build", unit="", at_most=1.0,
             ours="images more during a build"),
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """Start both servers; the daemon is one that only this reads and writes."""
        workload = make_workload()
        self._own = setting.servers.autoloadd(purpose="memory")
        self._redis = setting.servers.redis()
        self._building = Building(self._own, workload)
        self._peers = (
            own.own(self._own.socket_path),
            redis_server.redis_py(self._redis.socket_path),
        )
        self._clients = {peer: peer.open() for peer in self._peers}

    def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            client.close()

    def run_round(self, _number: int, figures: Figures) -> None:
        """Read everything, look; then build an image, and look at the most."""
        for peer, client in self._clients.items():
            with peer.watched():
                read_everything(client)
        figures.add(f"memory, MB: {own.KEY}", memory_bytes(self._own.pid) / 1e6)
        figures.add("memory, MB: redis-server", memory_bytes(self._redis.pid) / 1e6)
        self._building.approach()
        before = memory_bytes(self._own.pid)
        seen = [before]
        self._building.trigger(lambda: seen.append(memory_bytes(self._own.pid)))
        with own.open_cache(self._own.socket_path) as cache:
            (shard,) = cache.shards()
        figures.add("images more during a build", (max(seen) - before) / shard["image_bytes"])


def read_everything(client: Client) -> None:
    """Get every entry of W once. Raises WrongBytesError."""
    workload = make_workload()
    for number, name in enumerate(workload.names):
        workload.check(number, client.get(name))
