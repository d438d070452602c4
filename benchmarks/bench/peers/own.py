"""autoloadd, through the public `Cache`."""

from __future__ import annotations

from functools import partial

from autoloadd_client import Cache
from autoloadd_client.errors import CacheError
from bench.workload import MTIME_NS, PRODUCER

from .client import Client, Peer

KEY = "autoloadd"
OVER_SOCKET = "autoloadd over its socket"
TIMEOUT_SECONDS = 20.0
"""A machine that stalls is a wide spread, not a failed peer."""


def open_cache(socket_path: str, *, over_socket: bool = False) -> Cache:
    """Return a cache of the benchmark's producer, not connected yet."""
    return Cache(
        PRODUCER,
        socket_path=socket_path,
        binary_mtime_ns=MTIME_NS,
        timeout=TIMEOUT_SECONDS,
        bulk_timeout=600.0,
        shared=not over_socket,
    )


def open_own(socket_path: str, sync: str = "write", *, over_socket: bool = False) -> Client:
    """Return a client as a program has it."""
    cache = open_cache(socket_path, over_socket=over_socket)
    return Client(
        get=cache.get,
        get_many=cache.get_many,
        put=partial(cache.put, sync=sync),
        close=cache.close,
    )


def own(socket_path: str, sync: str = "write") -> Peer:
    """Return autoloadd as a peer."""
    return Peer(KEY, partial(open_own, socket_path, sync), (CacheError, OSError))


def own_over_socket(socket_path: str) -> Peer:
    """Return autoloadd as a peer whose every get is a round trip."""
    opener = partial(open_own, socket_path, over_socket=True)
    return Peer(OVER_SOCKET, opener, (CacheError, OSError))


def count_gets(socket_path: str) -> int:
    """Return how many gets the daemon has answered itself."""
    with open_cache(socket_path) as cache:
        stats = cache.stats()
    return int(stats["hits"]) + int(stats["misses"])
