"""The cache that needs no server: one file that every put locks, rewrites and fsyncs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from locked_file import LockedFileCache

from .client import Client, Peer

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY = "locked file"


def open_locked_file(path: str) -> Client:
    """Return a client with a lock descriptor of its own."""
    cache = LockedFileCache(path)
    return Client(get=cache.get, put=cache.put, close=cache.close)


def with_locked_file(path: str) -> Peer:
    """Return it as a peer."""
    return Peer(KEY, partial(open_locked_file, path))


def load(path: str, entries: Iterable[tuple[str, bytes]]) -> None:
    """Store exactly these entries."""
    cache = LockedFileCache(path)
    cache.replace_all(dict(entries))
    cache.close()
