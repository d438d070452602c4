"""A client on a socket of its own, of which events are handled one by one."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

from autoloadd_daemon.peers import Peer
from autoloadd_daemon.plain_requests import PlainRequests
from autoloadd_protocol.framing import encode_frame
from autoloadd_protocol.messages import encode_request

from .harness import PRODUCER

if TYPE_CHECKING:
    from .engine import Engine

READABLE = select.EPOLLIN


class Client:
    """A connection that has said hello, and what takes plain requests on it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.socket, ours = socket.socketpair()
        self.socket.settimeout(20)
        ours.setblocking(False)
        self.woken = 0
        self.peer = Peer(ours, engine.context, self._wake)
        self.session = self.peer.session
        self.descriptor = self.peer.descriptor
        self.ask(encode_frame(encode_request(1, "hello", [[1, 0], PRODUCER.as_map()])))
        self.quiet = {self.descriptor: self.peer}
        self.plain_requests = PlainRequests(engine.context, self.quiet)

    def close(self) -> None:
        self.socket.close()
        self.peer.close()

    def ask(self, data: bytes) -> bytes:
        """Have a request run the general way; return the answer."""
        self.session.receive(data)
        self.session.advance()
        self.engine.settle()
        return b"".join(self.session.take_output())

    def turn(self, event: int = READABLE) -> list[tuple[int, int]]:
        """Return what is left of an event."""
        return self.plain_requests.answer([(self.descriptor, event)])

    def fill(self) -> int:
        """Send until the client's socket takes nothing more; return the bytes."""
        sent = 0
        while True:
            try:
                sent += self.peer.socket.send(bytes(1 << 16))
            except BlockingIOError:
                return sent

    def _wake(self, _peer: Peer) -> None:
        self.woken += 1
