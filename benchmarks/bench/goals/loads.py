"""What the server itself does, driven by the compiled load generator (goals 4, 5 and 6)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from bench.daemons import settle
from bench.load import Load
from bench.setting import in_turn
from bench.verdicts import Goal
from bench.workload import ENTRIES

if TYPE_CHECKING:
    from bench.daemons import Server
    from bench.load import Report
    from bench.setting import Setting
    from bench.verdicts import Figures

OWN, REDIS = "autoloadd", "redis-server"
GET_CONNECTIONS = (1, 8, 64)
PUT_CONNECTIONS = (1, 8, 32)
GET_SECONDS = 1.0
PUT_SECONDS = 1.0
FEW, MANY = 1_000, 100_000
"""Sizes of cache between which the latency of a put is compared."""

SYNCS = {"fsync": "always", "write": "everysec"}
"""What a put waits for, and redis's appendfsync that promises about as much."""

FSYNC_LIMITS = {1: 0.85, 8: 1.0, 32: 0.8}


def gets(connections: int, side: str) -> str:
    """Return the key of gets per second."""
    return f"gets/s at {connections} connections: {side}"


def puts(sync: str, connections: int, side: str) -> str:
    """Return the key of puts per second."""
    return f"{sync} puts/s at {connections} connections: {side}"


class ServerGets:
    """Gets of random names of W, by connections that each wait for their answer."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=4, what="gets/s at 8 connections, against redis-server", unit="/s",
             at_least=0.9, ours=gets(8, OWN), peer=gets(8, REDIS)),
        Goal(number=4, what="gets/s at 64 connections, against redis-server", unit="/s",
             at_least=1.0, ours=gets(64, OWN), peer=gets(64, REDIS)),
        Goal(number=4, what="p50 of one connection, against redis-server", unit="µs",
             at_most=1.1, ours=f"get p50, µs: {OWN}", peer=f"get p50, µs: {REDIS}"),
        Goal(number=4, what="largest p99 / p50 of 8 connections", unit="",
             at_most=4, ours=f"p99 / p50 of a connection: {OWN}"),
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """Start and fill both servers."""
        self._setting = setting
        self._sides = {OWN: setting.servers.autoloadd(), REDIS: setting.servers.redis()}

    def close(self) -> None:
        """Nothing is held between rounds."""

    def run_round(self, number: int, figures: Figures) -> None:
        """Measure both at each number of connections."""
        for connections in GET_CONNECTIONS:
            for side in in_turn((OWN, REDIS), number):
                report = run_load(
                    self._setting, side, self._sides[side], connections=connections,
                    seconds=self._setting.seconds(GET_SECONDS), seed=number + 1,
                )  # fmt: skip
                figures.add(gets(connections, side), report.per_second)
                if connections == 1:
                    figures.add(f"get p50, µs: {side}", report.p50_ns / 1e3)
                if connections == 8:
                    figures.add(f"p99 / p50 of a connection: {side}", report.unfairness)


class ServerPuts:
    """Acknowledged puts of random names of W with new bytes."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        *(
            Goal(number=5, what=f"fsync puts/s at {n} connections, against redis always",
                 unit="/s", at_least=limit, ours=puts("fsync", n, OWN),
                 peer=puts("fsync", n, REDIS))
            for n, limit in FSYNC_LIMITS.items()
        ),
        *(
            Goal(number=5, what=f"write puts/s at {n} connections, against redis everysec",
                 unit="/s", at_least=0.7, ours=puts("write", n, OWN), peer=puts("write", n, REDIS))
            for n in PUT_CONNECTIONS
        ),
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """Start and fill the servers: a redis for each of its levels."""
        self._setting = setting
        self._redis = {sync: setting.servers.redis(level) for sync, level in SYNCS.items()}
        self._own = setting.servers.autoloadd(purpose="put")

    def close(self) -> None:
        """Nothing is held between rounds."""

    def run_round(self, number: int, figures: Figures) -> None:
        """Measure both at each level and number of connections."""
        for sync, redis in self._redis.items():
            sides = {OWN: self._own, REDIS: redis}
            for connections in PUT_CONNECTIONS:
                for side in in_turn((OWN, REDIS), number):
                    rate = self._measure(side, sides[side], sync, connections, number)
                    figures.add(puts(sync, connections, side), rate)

    def _measure(
        self, side: str, server: Server, sync: str, connections: int, number: int
    ) -> float:
        # What an earlier run left to be written or rewritten must not be this one's burden.
        settle(server)
        os.sync()
        return run_load(
            self._setting, side, server, operation="put", sync=sync, connections=connections,
            seconds=self._setting.seconds(PUT_SECONDS), seed=number + 1,
        ).per_second  # fmt: skip


class PutsBySize:
    """The latency of one put at a time, in a small and in a large cache."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=6, what=f"put p50 at {MANY:,} entries, against {FEW:,}", unit="µs",
             at_most=1.2, ours=f"put p50, µs: {MANY} entries", peer=f"put p50, µs: {FEW} entries"),
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """Start and fill a daemon of each size."""
        self._setting = setting
        self._sizes = {n: setting.servers.autoloadd(n, "put") for n in (FEW, MANY)}

    def close(self) -> None:
        """Nothing is held between rounds."""

    def run_round(self, number: int, figures: Figures) -> None:
        """Measure both."""
        for entries in in_turn((FEW, MANY), number):
            settle(self._sizes[entries])
            report = run_load(
                self._setting, OWN, self._sizes[entries], operation="put", entries=entries,
                seconds=self._setting.seconds(PUT_SECONDS), seed=number + 1,
            )  # fmt: skip
            figures.add(f"put p50, µs: {entries} entries", report.p50_ns / 1e3)
            figures.add(f"put p99, µs: {entries} entries", report.p99_ns / 1e3)


def run_load(
    setting: Setting,
    side: str,
    server: Server,
    *,
    operation: str = "get",
    sync: str = "write",
    connections: int = 1,
    entries: int = ENTRIES,
    seconds: float,
    seed: int,
) -> Report:
    """Return the report of one run of the load generator. Raises PeerFailedError."""
    return Load(
        program=setting.program,
        protocol="resp" if side == REDIS else "autoloadd",
        socket_path=server.socket_path,
        workload=setting.servers.workload_file(entries),
        operation=operation,
        sync=sync,
        connections=connections,
        seconds=seconds,
        seed=seed,
    ).run()
