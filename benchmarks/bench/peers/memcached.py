"""memcached, through pymemcache (Python) and pylibmc (libmemcached). A value is mtime and blob."""

from __future__ import annotations

import socket
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pylibmc
from pymemcache.client.base import Client as Pymemcache
from pymemcache.exceptions import MemcacheError

from .client import PREFIX, Client, Peer, fresh_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

PYLIBMC = "pylibmc"
PYMEMCACHE = "pymemcache"


def open_pylibmc(socket_path: str) -> Client:
    """Return libmemcached's client: binary off, as it is faster for single gets."""
    client = pylibmc.Client([f"/{socket_path.lstrip('/')}"], behaviors={"tcp_nodelay": True})
    ask = client.get

    def get(name: str) -> bytes | None:
        return fresh_bytes(ask(name))

    return Client(get=get, close=client.disconnect_all)


def open_pymemcache(socket_path: str) -> Client:
    """Return the client in pure Python."""
    client = Pymemcache(socket_path, no_delay=True)
    ask = client.get

    def get(name: str) -> bytes | None:
        return fresh_bytes(ask(name))

    return Client(get=get, close=client.close)


def with_pylibmc(socket_path: str) -> Peer:
    """Return memcached as a peer, through libmemcached."""
    return Peer(PYLIBMC, partial(open_pylibmc, socket_path), (pylibmc.Error, OSError))


def with_pymemcache(socket_path: str) -> Peer:
    """Return memcached as a peer, through pymemcache."""
    return Peer(PYMEMCACHE, partial(open_pymemcache, socket_path), (MemcacheError, OSError))


def load(socket_path: str, entries: Iterable[tuple[str, bytes]]) -> None:
    """Store entries. Raises MemcacheError or OSError."""
    with closing(Pymemcache(socket_path)) as client:
        for name, blob in entries:
            client.set(name, PREFIX + blob, noreply=False)


def is_ready(socket_path: str) -> bool:
    """Tell whether a server accepts."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(socket_path) == 0
