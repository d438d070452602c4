"""Gets of one process, through the client library of each peer (goals 1 and 10)."""

from __future__ import annotations

from random import Random
from time import perf_counter_ns
from typing import TYPE_CHECKING, ClassVar
from zlib import crc32

from bench.peers import embedded, memcached, own, redis_server
from bench.setting import in_turn
from bench.verdicts import Goal, PeerFailedError, WrongBytesError
from bench.workload import make_workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.peers.client import Client, Peer
    from bench.setting import Setting
    from bench.verdicts import Figures

UNIFORM = "get, µs"
HOT = "get of 256 hot names, µs"
MANY = "get_many of 50, µs"
HOT_NAMES = 256
MANY_NAMES = 50
AT_ONCE = 64
"""Answers that are held until the clock has stopped and they can be checked: 190 kB."""

GETS = {
    own.KEY: 20_000,
    embedded.LMDB: 20_000,
    embedded.SQLITE: 4_000,
    embedded.DISKCACHE: 3_000,
}
OTHER_GETS = 2_000
MANIES = 100


class Reads:
    """All clients are open in this process; each round asks each for names of its own seed."""

    GOALS: ClassVar[tuple[Goal, ...]] = (
        Goal(number=1, what="get of W by name, against lmdb", unit="µs", at_most=0.70,
             ours=f"{UNIFORM}: {own.KEY}", peer=f"{UNIFORM}: {embedded.LMDB}"),
        Goal(number=1, what="get of 256 hot names, against lmdb", unit="µs", at_most=0.78,
             ours=f"{HOT}: {own.KEY}", peer=f"{HOT}: {embedded.LMDB}"),
        Goal(number=1, what="times as fast as redis-py", unit="µs", at_least=40, inverted=True,
             ours=f"{UNIFORM}: {own.KEY}", peer=f"{UNIFORM}: {redis_server.KEY}"),
        Goal(number=1, what="times as fast as pylibmc", unit="µs", at_least=15, inverted=True,
             ours=f"{UNIFORM}: {own.KEY}", peer=f"{UNIFORM}: {memcached.PYLIBMC}"),
        Goal(number=10, what="get over the socket, against redis-py", unit="µs", at_most=0.6,
             ours=f"{UNIFORM}: {own.OVER_SOCKET}", peer=f"{UNIFORM}: {redis_server.KEY}"),
        Goal(number=10, what="get_many of 50, against redis-py's mget", unit="µs", at_most=0.9,
             ours=f"{MANY}: {own.KEY}", peer=f"{MANY}: {redis_server.KEY}"),
        Goal(number=10, what="the same over the socket", unit="µs", at_most=0.9,
             ours=f"{MANY}: {own.OVER_SOCKET}", peer=f"{MANY}: {redis_server.KEY}"),
    )  # fmt: skip

    def __init__(self, setting: Setting) -> None:
        """Open a client of each peer and see that each has all of W."""
        servers = setting.servers
        self._setting = setting
        self._workload = make_workload()
        self._crcs = [crc32(blob) for _, blob in self._workload.entries()]
        self._socket = servers.autoloadd().socket_path
        redis, memcache = servers.redis().socket_path, servers.memcached.socket_path
        self._peers: tuple[Peer, ...] = (
            own.own(self._socket),
            embedded.with_lmdb(servers.lmdb_path),
            own.own_over_socket(self._socket),
            redis_server.redis_py(redis),
            redis_server.redis_py(redis, single=True),
            memcached.with_pylibmc(memcache),
            memcached.with_pymemcache(memcache),
            embedded.with_sqlite(servers.sqlite_path),
            embedded.with_diskcache(servers.diskcache_directory),
        )
        self._clients = {peer.key: peer.open() for peer in self._peers}
        for peer in self._peers:
            self._time_gets(peer, range(len(self._workload)))

    def close(self) -> None:
        """Close all clients."""
        for client in self._clients.values():
            client.close()

    def run_round(self, number: int, figures: Figures) -> None:
        """Ask every peer; the hot names and get_many where a goal asks for them."""
        random = Random(number)
        everything = range(len(self._workload))
        hot = random.sample(everything, HOT_NAMES)
        for peer in in_turn(self._peers, number):
            count = self._setting.times(GETS.get(peer.key, OTHER_GETS))
            before = own.count_gets(self._socket)
            time = self._time_gets(peer, random.choices(everything, k=count))
            figures.add(f"{UNIFORM}: {peer.key}", time)
            if peer.key == own.OVER_SOCKET:
                self._see_round_trips(before, count)
        for peer in in_turn(self._peers[:2], number):
            count = self._setting.times(GETS[peer.key])
            figures.add(f"{HOT}: {peer.key}", self._time_gets(peer, random.choices(hot, k=count)))
        shared, _, asking, redis, *_ = self._peers
        for peer in in_turn((shared, asking, redis), number):
            figures.add(f"{MANY}: {peer.key}", self._time_many(peer, random))

    def _see_round_trips(self, before: int, count: int) -> None:
        answered = own.count_gets(self._socket) - before
        if answered < count:
            raise PeerFailedError(f"{count - answered} of {count} gets did not go over the socket")

    def _time_gets(self, peer: Peer, numbers: Sequence[int]) -> float:
        """Return µs per get; every answer is checked, while the clock stands."""
        names, taken = self._workload.names, 0
        client = self._clients[peer.key]
        for start in range(0, len(numbers), AT_ONCE):
            some = numbers[start : start + AT_ONCE]
            wanted = [names[number] for number in some]
            taken_now, blobs = _timed(peer, client, wanted)
            taken += taken_now
            self._check(peer, some, blobs)
        return taken / len(numbers) / 1e3

    def _time_many(self, peer: Peer, random: Random) -> float:
        """Return µs per get_many of 50 names."""
        names, taken = self._workload.names, 0
        get_many = self._clients[peer.key].get_many
        assert get_many is not None, "both have it"
        times = self._setting.times(MANIES)
        for _ in range(times):
            some = random.sample(range(len(names)), MANY_NAMES)
            wanted = [names[number] for number in some]
            with peer.watched():
                started = perf_counter_ns()
                found = get_many(wanted)
                taken += perf_counter_ns() - started
            self._check(peer, some, [found.get(name) for name in wanted])
        return taken / times / 1e3

    def _check(self, peer: Peer, numbers: Sequence[int], blobs: Sequence[bytes | None]) -> None:
        # By checksum: comparing would bring the expected bytes into the cache of the CPU, and
        # what is timed would find its own bytes gone.
        for number, blob in zip(numbers, blobs, strict=True):
            if blob is None or crc32(blob) != self._crcs[number]:
                raise WrongBytesError(f"{peer.key}: wrong bytes for {self._workload.names[number]}")


def _timed(peer: Peer, client: Client, names: Sequence[str]) -> tuple[int, list[bytes | None]]:
    get = client.get
    with peer.watched():
        started = perf_counter_ns()
        blobs = [get(name) for name in names]
        return perf_counter_ns() - started, blobs
