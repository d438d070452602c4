"""What a client can ask of any daemon, of any version, without a producer: the control plane."""

from __future__ import annotations

from time import monotonic

from .errors import ForgedError

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from typing import Any, Self

    from .process import ProcessConnections


class Control:
    """The calls that work also while the user has the cache switched off."""

    def __init__(
        self, connections: ProcessConnections, *, timeout: float, bulk_timeout: float
    ) -> None:
        """Raise ValueError for a timeout (seconds) that cannot be."""
        if not 0 < timeout < float("inf") or not 0 < bulk_timeout < float("inf"):
            raise ValueError("a timeout is a number of seconds, more than 0")
        self._connections = connections
        self._timeout = timeout
        self._bulk_timeout = bulk_timeout

    def ping(self) -> None:
        """Return when the daemon answers."""
        if self._control("ping") != "pong":
            raise ForgedError("the answer to ping is not pong")

    def status(self) -> dict[str, Any]:
        """Return the daemon's state: see docs/protocol.md."""
        from .calls import require_map  # noqa: PLC0415

        return require_map(self._control("status"))

    def shards(self) -> list[dict[str, Any]]:
        """Return all shards, of every producer, with header, sizes and last use."""
        from .calls import require_items, require_map  # noqa: PLC0415

        return [require_map(shard) for shard in require_items(self._control("shards"))]

    def drop_shard(self, shard_id: str) -> None:
        """Delete a shard with all its entries, whoever the producer is."""
        self._control("drop_shard", shard_id, seconds=self._bulk_timeout)

    def shutdown(self) -> None:
        """Stop the daemon, after it has flushed everything."""
        connection = self._connections.own()
        # On a new connection, and never twice: the second could stop the next daemon.
        connection.close(monotonic() + self._timeout)
        self._control("shutdown", seconds=self._bulk_timeout, again=False)
        connection.close(monotonic() + self._timeout)

    @property
    def server(self) -> dict[str, Any]:
        """What the daemon said to `hello`: protocol, server_version, pid, features, limits, ..."""
        from .calls import decode_result, require_map  # noqa: PLC0415

        self.ping()
        connection = self._connections.own()
        answer, deadline = connection.hello_answer, monotonic() + self._timeout
        return require_map(decode_result(connection, answer, deadline))

    def close(self) -> None:
        """Let go of the socket. It does not wait for `wait=False` writes; a later call connects."""
        self._connections.own().close(monotonic() + self._timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        """Close."""
        self.close()

    def _control(
        self, method: str, *params: object, seconds: float | None = None, again: bool = True
    ) -> Any:
        from .calls import call  # noqa: PLC0415

        connection = self._connections.own()
        return call(connection, method, params, self._deadline(seconds), again=again)

    def _deadline(self, seconds: float | None = None) -> float:
        return monotonic() + (self._timeout if seconds is None else seconds)
