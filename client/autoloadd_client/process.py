"""The connection of this process: a forked child gets one of its own."""

from __future__ import annotations

import os

from .connection import Connection

TYPE_CHECKING = False  # typing's own costs 10 ms
if TYPE_CHECKING:
    from autoloadd_protocol.producer import Producer


class ProcessConnections:
    """Gives each process a connection of its own to the daemon at `path` (None: rendezvous).

    With an inherited socket a child would read its parent's answers; and an inherited lock may be
    held for ever, by a thread that the child does not have.
    """

    def __init__(self, path: str | None, producer: Producer | None) -> None:
        self._path = path
        self._producer = producer
        self._by_pid: dict[int, Connection] = {}

    def own(self) -> Connection:
        """Return this process's connection: all its threads share it."""
        connection = self._by_pid.get(os.getpid())
        return self._replace_inherited() if connection is None else connection

    def new(self) -> Connection:
        """Return a connection that nobody else uses."""
        return Connection(self._path, self._producer)

    def _replace_inherited(self) -> Connection:
        pid = os.getpid()
        # setdefault is atomic: several threads of the child may come here at once.
        own = self._by_pid.setdefault(pid, self.new())
        for other, inherited in list(self._by_pid.items()):
            if other != pid:
                inherited.abandon()
                self._by_pid.pop(other, None)
        return own
