"""redis, through redis-py with hiredis. A value is the mtime and the blob."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import redis

from .client import PREFIX, Client, Peer, fresh_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KEY = "redis-py"
ONE_CONNECTION = "redis-py, single connection"
_PIPELINED = 500


def open_redis(socket_path: str, *, single: bool = False) -> Client:
    """Return a client: redis-py's usual one, with a pool, or one tied to a connection."""
    client = redis.Redis(unix_socket_path=socket_path, single_connection_client=single)
    ask = client.get

    def get(name: str) -> bytes | None:
        return fresh_bytes(ask(name))

    def get_many(names: Sequence[str]) -> dict[str, bytes]:
        values = zip(names, map(fresh_bytes, client.mget(names)), strict=True)
        return {name: blob for name, blob in values if blob is not None}

    def put(name: str, blob: bytes) -> object:
        return client.set(name, PREFIX + blob)

    return Client(get=get, get_many=get_many, put=put, close=client.close)


def redis_py(socket_path: str, *, single: bool = False) -> Peer:
    """Return redis as a peer."""
    key = ONE_CONNECTION if single else KEY
    return Peer(key, partial(open_redis, socket_path, single=single), (redis.RedisError, OSError))


def load(socket_path: str, entries: Iterable[tuple[str, bytes]]) -> None:
    """Store entries. Raises redis.RedisError."""
    with redis.Redis(unix_socket_path=socket_path) as client:
        pipe: Any = client.pipeline(transaction=False)
        for name, blob in entries:
            pipe.set(name, PREFIX + blob)
            if len(pipe) == _PIPELINED:
                pipe.execute()
        pipe.execute()


def is_ready(socket_path: str) -> bool:
    """Tell whether a server answers."""
    try:
        with redis.Redis(unix_socket_path=socket_path) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False
