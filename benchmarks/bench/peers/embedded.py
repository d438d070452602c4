"""Stores without a server: lmdb, sqlite3, diskcache. A get sees what was committed before it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import diskcache
import lmdb

from bench.workload import MTIME_NS

from .client import MTIME_BYTES, PREFIX, Client, Peer, fresh_bytes, read_mtime

if TYPE_CHECKING:
    from collections.abc import Iterable

LMDB = "python-lmdb"
SQLITE = "sqlite3"
DISKCACHE = "diskcache"

_MAP_BYTES = 1 << 34


def open_lmdb(path: str) -> Client:
    """Return a reader with a fresh read transaction for each get: an older one sees no newer value.

    The value is looked at in the map (`buffers`); only the blob is copied out.
    """
    environment = lmdb.open(path, map_size=_MAP_BYTES, subdir=False, readahead=False)
    begin = environment.begin

    def get(name: str) -> bytes | None:
        # Positional: db, parent, write, buffers. Faster than keywords in a `with`, by a tenth.
        transaction = begin(None, None, False, True)
        value = transaction.get(name.encode())
        fresh = value is not None and read_mtime(value)[0] >= MTIME_NS
        blob = bytes(value[MTIME_BYTES:]) if fresh else None
        transaction.abort()
        return blob

    return Client(get=get, close=environment.close)


def open_sqlite(path: str) -> Client:
    """Return a reader: one prepared statement for each get, WAL, the file mapped."""
    connection = _connect(path)
    execute = connection.execute
    statement = "SELECT blob FROM entries WHERE name = ? AND mtime >= ?"

    def get(name: str) -> bytes | None:
        row = execute(statement, (name, MTIME_NS)).fetchone()
        return None if row is None else row[0]

    return Client(get=get, close=connection.close)


def open_diskcache(directory: str) -> Client:
    """Return a reader as diskcache makes it."""
    cache = diskcache.Cache(directory)
    ask = cache.get

    def get(name: str) -> bytes | None:
        return fresh_bytes(ask(name))

    return Client(get=get, close=cache.close)


def with_lmdb(path: str) -> Peer:
    """Return lmdb as a peer."""
    return Peer(LMDB, partial(open_lmdb, path), (lmdb.Error, OSError))


def with_sqlite(path: str) -> Peer:
    """Return sqlite as a peer."""
    return Peer(SQLITE, partial(open_sqlite, path), (sqlite3.Error, OSError))


def with_diskcache(directory: str) -> Peer:
    """Return diskcache as a peer."""
    return Peer(DISKCACHE, partial(open_diskcache, directory), (sqlite3.Error, OSError))


def load_lmdb(path: str, entries: Iterable[tuple[str, bytes]]) -> None:
    """Store entries in one transaction. Raises lmdb.Error."""
    with (
        lmdb.open(path, map_size=_MAP_BYTES, subdir=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        for name, blob in entries:
            transaction.put(name.encode(), PREFIX + blob)


def load_sqlite(path: str, entries: Iterable[tuple[str, bytes]]) -> None:
    """Store entries in one transaction. Raises sqlite3.Error."""
    with closing(_connect(path)) as connection, connection:
        connection.execute("CREATE TABLE entries (name TEXT PRIMARY KEY, mtime INTEGER, blob BLOB)")
        rows = ((name, MTIME_NS, blob) for name, blob in entries)
        connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)


def load_diskcache(directory: str, entries: Iterable[tuple[str, bytes]]) -> None:
    """Store entries. Raises sqlite3.Error."""
    with (
        diskcache.Cache(directory, eviction_policy="none", size_limit=_MAP_BYTES) as cache,
        cache.transact(),
    ):
        for name, blob in entries:
            cache.set(name, PREFIX + blob)


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA mmap_size = 1073741824")
    return connection
