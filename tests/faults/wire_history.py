"""What shards must hold, from the frames that went over the sockets: nothing the daemon says of
itself is taken but its answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoloadd_protocol.messages import Answer, Request, decode_answer, decode_request
from autoloadd_protocol.producer import Producer

from .disk_model import Acknowledged, Submitted
from .engine import new_histories

if TYPE_CHECKING:
    from collections.abc import Callable

    from .disk_model import Operation
    from .engine import Contents

LEVEL_AT = {"put": 4, "put_many": 2, "delete": 1, "clear": 0, "bulk_commit": 1}
"""Where each write has its `sync`."""


@dataclass
class _Connection:
    shard: str = ""
    mode: str = ""
    staged: dict[str, bytes] = field(default_factory=dict)
    sent: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Writes that are not answered: their request ids, numbers and levels."""


class WireHistory:
    """Follows connections of which each has a shard of its own: their order is the shard's."""

    def __init__(self, note: Callable[[Operation], None]) -> None:
        self.histories = new_histories()
        self._note = note
        self._connections: dict[int, _Connection] = {}

    def connect(self, descriptor: int) -> None:
        """A client has come."""
        self._connections[descriptor] = _Connection()

    def request(self, descriptor: int, frame: bytes) -> None:
        """Take what a client sent."""
        connection = self._connections[descriptor]
        message = decode_request(frame)
        method, params = message.method, message.params
        if method == "hello":
            said = params[1]
            producer = Producer(said["name"], said["version"], said["pointer_width"])
            connection.shard = producer.shard_id()
        elif method == "bulk_begin":
            connection.mode, connection.staged = params[0], {}
        elif method == "bulk_add":
            connection.staged.update(_blobs(params[1]))
        elif method == "flush" or method in LEVEL_AT:
            self._write(connection, message.id if isinstance(message, Request) else None, message)

    def _write(self, connection: _Connection, request_id: int | None, message: Any) -> None:
        states = self.histories[connection.shard]
        states.append(self._after(connection, states[-1], message.method, message.params))
        number = len(states) - 1
        self._note(Submitted(connection.shard, number))
        if request_id is not None:
            at = LEVEL_AT.get(message.method)
            level = "fsync" if at is None else (*message.params, *(None,) * 5)[at] or "write"
            connection.sent[request_id] = number, level

    def _after(
        self, connection: _Connection, before: Contents, method: str, params: tuple[Any, ...]
    ) -> Contents:
        match method:
            case "put":
                return {**before, params[0]: params[1]}
            case "put_many":
                return {**before, **_blobs(params[0])}
            case "delete":
                return {name: blob for name, blob in before.items() if name not in params[0]}
            case "clear":
                return {}
            case "bulk_commit":
                return {**(before if connection.mode == "merge" else {}), **connection.staged}
            case _:
                return before

    def answer(self, descriptor: int, frame: bytes) -> None:
        """Take what the daemon answered. Refusals are none of what is followed here."""
        connection = self._connections[descriptor]
        answer = decode_answer(frame)
        if isinstance(answer, Answer) and answer.id in connection.sent:
            assert answer.error is None, answer.error
            number, level = connection.sent.pop(answer.id)
            self._note(Acknowledged(connection.shard, number, level))


def _blobs(entries: dict[str, Any]) -> Contents:
    return {name: entry[0] for name, entry in entries.items()}
